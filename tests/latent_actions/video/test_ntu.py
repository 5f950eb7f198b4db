"""NTU RGB+D: names, splits and lists on a tree of the published layout."""

from pathlib import Path

import numpy as np
import pytest

from invact_vla.core.errors import UserError
from invact_vla.data.video.video_io import write_video
from latent_actions.video.sources import NtuSource
from latent_actions.video.sources.ntu import (
    ACTIONS,
    ONE_SHOT_CLASSES,
    TRAIN_SUBJECTS_60,
    TRAIN_SUBJECTS_120,
)

SAMPLES = (
    "S001C001P001R001A001", "S001C002P001R001A001", "S001C003P001R001A001",  # one performance
    "S002C001P003R002A043", "S002C002P003R002A043", "S018C001P045R001A061",
)  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number, sample in enumerate(SAMPLES):
        folder = tmp_path / ("nturgb+d_rgb" if number < 5 else "nturgb+d_rgb_s018")
        write_video(folder / "v.mp4", np.zeros((3 + number, 32, 32, 3), np.uint8), 30)
        (folder / "v.mp4").rename(folder / f"{sample}_rgb.avi")
    return tmp_path


def samples(source: NtuSource, split) -> list[str]:
    return [clip.clip_id.removeprefix("ntu/") for clip in source.clips(split)]


def test_a_moment_is_one_performance_under_three_cameras(root):
    clips = NtuSource(root=root).clips("train")
    assert [clip.camera for clip in clips] == ["C001", "C002", "C003"]
    assert len({clip.moment_id for clip in clips}) == len({clip.take for clip in clips}) == 1
    assert {clip.view for clip in clips} == {"exo"} and {c.scene for c in clips} == {"S001"}
    assert clips[0].verb == "drink water" and clips[0].end_s == pytest.approx(3 / 30)
    assert clips[1].tags == {
        "setup": 1, "camera": 2, "subject": 1, "repetition": 1, "action": 1, "one_shot": 1,
    }  # fmt: skip


def test_splits(root):
    assert samples(NtuSource(root=root), "train") == list(SAMPLES[:3])
    assert samples(NtuSource(root=root), "val") == list(SAMPLES[3:5])
    view = NtuSource(root=root, protocol="cross_view")
    assert samples(view, "train") == [SAMPLES[1], SAMPLES[2], SAMPLES[4]]
    assert samples(view, "val") == [SAMPLES[0], SAMPLES[3]]
    setup = NtuSource(root=root, protocol="cross_setup", classes=120)
    assert samples(setup, "train") == list(SAMPLES[3:])  # even setups
    assert samples(setup, "val") == list(SAMPLES[:3])
    assert samples(NtuSource(root=root, classes=120), "train") == [*SAMPLES[:3], SAMPLES[5]]


def test_what_is_left_out_is_counted(root):
    listed = root / "missing.txt"
    listed.write_text("302 samples:\n\n" + SAMPLES[3] + "\n")
    (root / "readme.mp4").write_bytes(b"")
    (root / f"{SAMPLES[3]}_ir.avi").write_bytes(b"")
    source = NtuSource(root=root, missing_skeletons=listed, max_skipped=0.5)
    clips, dropped = source.index("val")
    assert [clip.clip_id for clip in clips] == [f"ntu/{SAMPLES[4]}"]
    assert dropped.counts == {
        "with missing skeletons": 1, "of classes beyond 60": 1, "with another file name": 1,
        "of another modality than RGB": 1,
    }  # fmt: skip
    assert dropped.damage == {"with another file name"}
    with pytest.raises(UserError, match="missing skeletons of github"):
        NtuSource(root=root, missing_skeletons=root / "nowhere.txt").clips("val")


def test_protocol_constants():
    assert len(TRAIN_SUBJECTS_60) == 20 and len(set(TRAIN_SUBJECTS_120)) == 53
    assert max(TRAIN_SUBJECTS_60) <= 40 and max(TRAIN_SUBJECTS_120) <= 106
    assert len(set(ACTIONS)) == 120 and len(ONE_SHOT_CLASSES) == 20
    assert (
        ACTIONS[5] == "pick up" and ACTIONS[42] == "fall down" and ACTIONS[119].endswith("scissors")
    )
    with pytest.raises(ValueError, match="60 or 120"):
        NtuSource(classes=90)  # type: ignore[arg-type]


def test_a_folder_without_samples_is_refused(tmp_path):
    with pytest.raises(UserError, match="SsssCccc"):
        NtuSource(root=tmp_path).clips("train")
