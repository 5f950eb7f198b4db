"""The videos of a label store are found by path and key: two of one name are never confused."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from invact_vla.core.errors import UserError
from invact_vla.core.schema import LatentLabels
from invact_vla.data.label_store import LabelIdentity, LabelStore, find_videos, relative_path
from invact_vla.data.video.frames import decode_frames, video_key
from invact_vla.data.video.video_io import write_video

NAMES = ("kitchen/1.mp4", "garage/1.mp4")  # one name, other pixels


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number, name in enumerate(NAMES):
        write_video(
            tmp_path / "videos" / name, np.full((4, 32, 32, 3), 60 + 120 * number, np.uint8), 10.0
        )
    return tmp_path / "videos"


def store_of(root: Path, names: tuple[str, ...] = NAMES) -> LabelStore:
    n = len(names)
    return LabelStore(
        identity=LabelIdentity("a", "a", "folder", "d", 8, 1),
        video_id=names,
        path=names,
        video_key=tuple(video_key(root / name) for name in names),
        frame=np.zeros(n, np.int64),
        frame_end=np.ones(n, np.int64),
        text=("",) * n,
        labels=LatentLabels(np.zeros((n, 1), np.int64), 8),
    )


def test_each_path_gives_its_own_pixels(root):
    found = find_videos(store_of(root), root)
    assert [decode_frames(found[name], [0]).mean().round(-1) for name in NAMES] == [60, 180]


def test_the_same_videos_elsewhere(root, tmp_path):
    store = store_of(root)
    moved = shutil.move(root, tmp_path / "moved")
    assert find_videos(store, moved)[NAMES[1]] == moved / NAMES[1]


def test_a_root_below_or_above_the_one_that_was_labeled(root):
    store = store_of(root)
    assert find_videos(store, root / "kitchen", [NAMES[0]]) == {NAMES[0]: root / "kitchen/1.mp4"}
    with pytest.raises(UserError, match=r"garage.1.mp4 .*\(another content\)"):
        find_videos(store, root / "kitchen")
    with pytest.raises(UserError, match=f"it lies in {root}/.*: give that"):
        find_videos(store_of(root / "kitchen", ("1.mp4",)), root)


@pytest.mark.parametrize("how", ["exchanged", "replaced", "same size", "another root"])
def test_another_file_under_the_path_is_refused(root, tmp_path, how):
    store = store_of(root)
    one, other = (root / name for name in NAMES)
    if how == "exchanged":
        one.rename(root / "x")
        other.rename(one)
        (root / "x").rename(other)
    elif how == "replaced":
        write_video(one, np.zeros((9, 32, 32, 3), np.uint8), 10.0)
    elif how == "same size":
        content = bytearray(one.read_bytes())
        content[-1] ^= 1
        one.write_bytes(content)
    else:
        shutil.copytree(root, tmp_path / "other")
        root = tmp_path / "other"
        shutil.copy(root / NAMES[1], root / NAMES[0])
    with pytest.raises(UserError, match=f"{root / NAMES[0]} is not the video that was labeled"):
        find_videos(store, root, [NAMES[0]])


def test_missing_and_forged_paths(root, tmp_path):
    store = store_of(root)
    (root / NAMES[0]).unlink()
    with pytest.raises(UserError, match=f"no video {NAMES[0]} in {root}"):
        find_videos(store, root)
    with pytest.raises(UserError, match="no folder"):
        find_videos(store, tmp_path / "nowhere")
    (tmp_path / "secret.mp4").write_bytes((root / NAMES[1]).read_bytes())
    for name in ("../secret.mp4", str(tmp_path / "secret.mp4")):
        with pytest.raises(UserError, match="outside of its root"):
            find_videos(store_of(root, (name,)), root)
    for name in ("a" * 300, "a/" * 1500, "a\0b"):
        with pytest.raises(UserError, match="by no path"):
            find_videos(replace(store_of(root, NAMES[1:]), path=(name,)), root)
    for name in ("1.mp4?fps=x", "a/b/c/d", "1.mp4/0", "?", "a?b=%00", "kitchen?fps=nan"):
        with pytest.raises(UserError, match="no video"):
            find_videos(replace(store_of(root, NAMES[1:]), path=(name,)), root)
    with pytest.raises(UserError, match="does not lie below"):
        relative_path(tmp_path / "secret.mp4", root)


def test_one_path_has_one_key(root):
    store = store_of(root)
    with pytest.raises(ValueError, match="two keys"):
        LabelStore(**{**vars(store), "path": NAMES[:1] * 2})


def test_the_key_of_a_large_file_sees_every_part(tmp_path):
    path = tmp_path / "large.bin"
    path.write_bytes(bytes(40 << 20))
    keys = {video_key(path)}
    for place in (0, 20 << 20, (40 << 20) - 1):
        with open(path, "r+b") as file:
            file.seek(place)
            file.write(bytes([1]) * (2 << 20))
            file.truncate(40 << 20)
        keys.add(video_key(path))
    assert len(keys) == 4
