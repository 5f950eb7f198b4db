"""The clip table of a source: which exo camera is the best, and that this decodes nothing anew."""

from dataclasses import replace

import pytest

from latent_actions.encoder.inputs.clips import VideoClips, pair_views
from latent_actions.video.sources import EgoExo4dSource


@pytest.fixture
def clips(tree) -> VideoClips:
    source = EgoExo4dSource(root=tree / "egoexo4d", workers=1)
    return VideoClips(source=source, size=16, oversample=1)


def test_the_best_exo_camera_is_known_when_it_is_asked_for(clips, tmp_path):
    plain = clips.table(2, tmp_path / "frames", 1)
    made = (tmp_path / "frames" / "frames.npy").stat().st_mtime_ns
    best = replace(clips, exo="best").table(2, tmp_path / "frames", 1)
    assert (tmp_path / "frames" / "frames.npy").stat().st_mtime_ns == made  # the same frames
    assert plain.best == () and len(best.best) == len(best) == len(plain)
    rows = [row for row in range(len(best)) if best.best[row]]
    assert rows and {best.view[row] for row in rows} == {"exo"}
    assert len({best.moment[row] for row in rows}) == len(rows)  # one a moment at most
    named = {best.moment[row]: row for row in rows}
    for table, known in ((best, named), (plain, {})):
        pairs = pair_views(table, range(len(table)))
        for row in map(int, pairs.exo):
            others = [r for r in range(len(table)) if table.moment[r] == table.moment[row]]
            first = min(table.camera[r] for r in others if table.view[r] == "exo")
            assert row == known.get(table.moment[row], row)
            assert table.moment[row] in known or table.camera[row] == first


def test_a_source_that_names_none_is_warned_about(clips, tmp_path, monkeypatch, caplog):
    read = EgoExo4dSource.index

    def nameless(source, split):
        records, dropped = read(source, split)
        return [replace(record, best=False) for record in records], dropped

    monkeypatch.setattr(EgoExo4dSource, "index", nameless)
    table = replace(clips, exo="best").table(2, tmp_path / "frames", 1)
    assert table.best == () and "names no best exo camera" in caplog.text
