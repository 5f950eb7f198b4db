"""The index and its report: what is dropped, what is unusual, what is an error."""

import json
from pathlib import Path

import numpy as np
import pytest

from invact_vla.core.errors import UserError
from invact_vla.core.files import read_json
from invact_vla.data.video.video_io import write_video
from latent_actions.encoder.inputs.clips import VideoClips
from latent_actions.video.index import IndexConfig, build_index, main, notes_on
from latent_actions.video.skip_report import SkipReport
from latent_actions.video.sources import FolderSource


def write(root: Path, *names: str) -> FolderSource:
    """A plain folder of videos of 4 frames at 8 fps; names: split/scene/verb/name."""
    for number, name in enumerate(names):
        frames = np.full((4, 32, 32, 3), 20 * number, np.uint8)
        write_video(root / f"{name}.mp4", frames, 8)
    return FolderSource(root=root)


TWO_VIEWS = (
    "train/kitchen/pick/a.ego", "train/kitchen/pick/a.cam", "train/hall/push/b.ego",
    "train/hall/push/b.cam", "train/yard/pick/c.ego", "train/yard/pick/c.cam",
    "val/kitchen/pick/d.ego", "val/attic/pour/e.ego", "val/attic/pour/e.cam",
)  # fmt: skip


def test_report_counts_and_notes(tmp_path):
    index = build_index(write(tmp_path, *TWO_VIEWS))
    assert len(index.records) == 9
    train = index.report["splits"]["train"]
    assert train == {
        "kept": 6, "moments": 3, "verbs": 2, "scenes": 3, "takes": 3,
        "views": {"ego": 3, "exo": 3}, "dropped": {},
    }  # fmt: skip
    notes = index.report["notes"]
    assert any(n.startswith("1 verbs of val are unseen in training (2 of 3 clips") for n in notes)
    assert any(n.startswith("val has two scenes only (attic, kitchen)") for n in notes)
    assert not any(note.startswith("train") for note in notes)


def test_one_class_one_scene_one_view_are_noted(tmp_path):
    source = write(tmp_path, "train/kitchen/pick/a", "train/kitchen/pick/b")
    notes = notes_on(build_index(source, ("train",)).records)
    assert [note.split(" (")[0] for note in notes] == [
        "train has one class only",
        "train has one scene only",
        "train has no moment that both an ego and an exo camera see",
    ]


def test_vocabulary(tmp_path):
    source = write(tmp_path, *TWO_VIEWS)
    index = build_index(source, ("val",), {"pour"})
    assert {record.verb for record in index.records} == {"pour"}
    dropped = index.report["splits"]["val"]["dropped"]
    assert dropped["verbs not in the vocabulary"] == {
        "count": 1, "damage": False, "examples": ["kitchen/pick/d.ego: pick"],
    }  # fmt: skip
    with pytest.raises(UserError, match=r"no clips of split 'val'.*3 verbs not in the vocabulary"):
        build_index(source, ("val",), {"juggle"})


def test_examples_are_limited_and_only_damage_counts():
    dropped = SkipReport()
    dropped.seen = 100
    for number in range(9):
        dropped.add("unsure", str(number))
    dropped.add("corrupt videos", "x.mp4", damage=True)
    assert dropped.as_json() == {
        "corrupt videos": {"count": 1, "damage": True, "examples": ["x.mp4"]},
        "unsure": {"count": 9, "damage": False, "examples": list("01234")},
    }
    dropped.check("videos", 0.01)
    with pytest.raises(UserError, match=r"1 of 100 videos are damaged .*x\.mp4"):
        dropped.check("videos", 0.009)


def test_command_writes_and_prints_the_report(tmp_path, capsys):
    source = write(tmp_path / "data", *TWO_VIEWS)
    words = tmp_path / "verbs.txt"
    words.write_text("pick\npush\n\n")
    out = main(IndexConfig(out=tmp_path / "out", source=source, vocabulary=words))
    report = read_json(out / "report.json")
    assert report["splits"]["val"]["kept"] == 1 and report["source"] == "folder"
    assert len(read_json(out / "records.json")) == 7
    printed = capsys.readouterr().out
    assert "train: 6 clips (3 ego, 3 exo), 3 moments, 2 verbs, 3 scenes, 3 takes" in printed
    assert "dropped       2 verbs not in the vocabulary (such as attic/pour/e.cam: pour)" in printed
    with pytest.raises(UserError, match="one verb per line"):
        main(IndexConfig(out=tmp_path / "o", source=source, vocabulary=tmp_path / "none.txt"))


@pytest.mark.parametrize("decode", ["once", "on_the_fly"])
def test_the_report_lies_beside_the_store(tmp_path, decode):
    source = write(tmp_path / "data", *TWO_VIEWS)
    data = VideoClips(source=source, size=16, oversample=1, decode=decode)
    table = data.table(2, tmp_path / "store", 1)
    assert len(table) == 9 and table.read(np.array([3, 0])).shape == (2, 2, 16, 16, 3)
    first = table.read(np.array([0])).mean()  # train/hall/push/b.cam, the fourth one written
    assert abs(float(first) - 60) < 3
    report = json.loads((tmp_path / "store" / "report.json").read_text())
    assert report["index"]["splits"]["train"]["kept"] == 6
    assert report["decoding"] == {"kept": 9, "dropped": {}, "changed": {}}
    assert (tmp_path / "store" / "frames.npy").exists() == (decode == "once")
