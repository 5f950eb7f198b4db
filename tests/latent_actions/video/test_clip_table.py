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


def test_more_sources_add_training_clips_of_other_scenes(clips, tmp_path):
    alone = clips.table(2, tmp_path / "alone", 1)
    more = replace(clips, more=(clips.source,))
    both = more.table(2, tmp_path / "both", 1)
    count = len(alone.rows_of("train"))
    assert len(both) == len(alone) + count and len(both.rows_of("train")) == 2 * count
    assert both.moment[: len(alone)] == alone.moment
    for name in ("moment", "take", "scene"):  # the same files, and yet other places
        added = set(getattr(both, name)[len(alone) :])
        assert added and not added & set(getattr(alone, name))
    first = list(alone.rows_of("train"))
    assert (both.read(both.rows_of("train")[count:]) == alone.read(alone.rows_of("train"))).all()
    assert [both.verb[len(alone) + n] for n in range(count)] == [alone.verb[row] for row in first]
    assert len(more.table(2, tmp_path / "val", 1, ("val",))) == len(alone.rows_of("val"))
    assert set(more.parents()) == {"source", "more0_source"}
    with pytest.raises(ValueError, match="hands are read of one source"):
        replace(more, hands=True)
