"""What counts as a video: files, folders of pictures, cameras of demonstrations; listing and keys."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from invact_vla.data.dataset import DatasetConfig
from invact_vla.data.readers import open_dataset
from invact_vla.data.video.display import Fit
from invact_vla.data.video.frames import (
    VideoError,
    decode_frames,
    file_stamp,
    list_videos,
    open_video,
    probe,
    true_actions,
    video_key,
)
from invact_vla.data.video.pictures import at_rate, holds_pictures, with_options
from tests.latent_actions.sources import lerobot, libero, moving_square, write_clip, write_pictures


def test_a_folder_of_pictures(tmp_path):
    folder, frames = write_pictures(tmp_path / "7", 3, frames=12), moving_square(3, 12)
    info = probe(folder)
    assert true_actions(folder) is None
    assert (info.n_frames, info.fps, info.times) == (12, 12.0, ())
    found = decode_frames(folder, [11, 0, 0, 5])
    assert np.abs(found.astype(int) - frames[[11, 0, 0, 5]]).mean() < 4
    assert decode_frames(folder, [1], 16, "squash").shape == (1, 16, 16, 3)
    with open_video(folder) as video:
        assert np.array_equal(video.frames([5], seek=True), found[[3]])
    for rate in ("x", "0", "-1", "nan", "inf"):
        with pytest.raises(VideoError, match=r"expected \?fps="):
            probe(folder.with_name(f"{folder.name}?fps={rate}"))
    with pytest.raises(VideoError, match="ends after 12 frames, frame 12 was wanted"):
        decode_frames(folder, [12])
    (folder / "img_00004.jpg").unlink()
    with pytest.raises(VideoError, match="lacks picture 4"):
        probe(folder)


def test_pictures_are_scaled_as_a_video_of_the_same_frames(tmp_path):
    folder, film = write_pictures(tmp_path / "7", 3), write_clip(tmp_path / "7.mp4", 3)
    cases: list[tuple[int | None, Fit]] = [(None, "crop"), (16, "crop"), (16, "squash")]
    for size, fit in cases:
        ours, theirs = (decode_frames(path, [0, 9], size, fit) for path in (folder, film))
        assert ours.shape == theirs.shape and np.abs(ours.astype(int) - theirs).mean() < 8


def test_the_rate_of_pictures_stands_behind_the_path(tmp_path):
    folder, film = write_pictures(tmp_path / "7", 3), write_clip(tmp_path / "7.mp4", 3)
    assert at_rate(folder, 12.0) == folder and at_rate(film, 30.0) == film
    assert probe(at_rate(folder, 30.0)).fps == 30.0
    assert video_key(at_rate(folder, 30.0)) == video_key(folder)
    assert with_options(folder, {"key": "a/b", "fps": None}).parent == tmp_path


@pytest.mark.parametrize("make", [libero, lerobot])
def test_a_camera_of_a_demonstration(make, tmp_path):
    source = make(tmp_path / "data")
    clips = source.clips("train") + source.clips("val")
    assert len(clips) == 6 and len({video_key(clip.video) for clip in clips}) == 6
    dataset = open_dataset(DatasetConfig(path=source.root))
    places = {dataset.locate(p): p for p in range(len(dataset.all_episodes))}
    for clip in clips:
        place = places[clip.video.parents[1], clip.video.parent.name] if make is libero else places[
            source.root, clip.video.parent.name]  # fmt: skip
        expected = dataset.upright_frames(place, "agentview")
        assert np.array_equal(decode_frames(clip.video, [29, 0, 3]), expected[[29, 0, 3]])
        info = probe(clip.video)
        assert info.n_frames == 30 and clip.end_s == pytest.approx(info.duration_s)
        assert file_stamp(clip.video) is not None
        actions = true_actions(clip.video)
        assert actions is not None and np.array_equal(
            actions, dataset.checked_numbers(place).actions
        )
    with pytest.raises(VideoError, match="no video"):
        probe(clips[0].video.parent / "other camera")
    with pytest.raises(VideoError, match="no video"):
        video_key(clips[0].video.parent.parent / "demo_99" / "agentview")


def test_a_demonstration_with_options(tmp_path):
    source = libero(tmp_path / "data")
    clip = source.clips("train")[0]
    usual = decode_frames(clip.video, [0])
    raw = decode_frames(with_options(clip.video, {"rotation": "none"}), [0])
    assert np.array_equal(raw[0], usual[0, ::-1, ::-1])
    key = decode_frames(with_options(clip.video, {"key": "eye_in_hand_rgb"}), [0])
    assert np.array_equal(key, decode_frames(clip.video.with_name("wrist"), [0]))


def test_a_changed_demonstration_has_another_key(tmp_path):
    source = libero(tmp_path / "data")
    clip = source.clips("train")[0]
    file, key = clip.video.parents[1], video_key(clip.video)
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(1, 1))
    assert video_key(clip.video) != key


def test_videos_are_listed_in_any_case_and_over_links(tmp_path):
    root, away = tmp_path / "root", tmp_path / "away"
    for name in ("b/1.mp4", "b/2.MOV", "a.webm", "b/.hidden.mp4", "b/notes.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    write_pictures(root / "c", 0, frames=2)
    (away / "deep").mkdir(parents=True)
    (away / "deep/3.Avi").write_bytes(b"x")
    (root / "a_link").symlink_to(root / "b")  # the same once more
    (root / "d").symlink_to(away)
    (away / "loop").symlink_to(root)
    names = [path.relative_to(root).as_posix() for path in list_videos(root)]
    assert names == ["a.webm", "b/1.mp4", "b/2.MOV", "c", "d/deep/3.Avi"]
    assert [p.name for p in list_videos(root, depth=1)] == ["a.webm", "c"]


def test_a_name_is_no_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("10:22:33.mp4", "concat:a.mp4"):
        write_clip(tmp_path / "a.mp4", 0).rename(name)
        assert probe(Path(name)).n_frames == 20


def test_names_of_numbered_pictures():
    assert holds_pictures(["1.jpg", "img_00001.jpg", "image-2.PNG", "frame_3.jpeg", "frame-4.png"])
    assert holds_pictures(["1.jpg", "Thumbs.db", "desktop.ini", ".DS_Store", "._1.jpg"])
    assert not holds_pictures(["Thumbs.db"])
    assert not holds_pictures(["1.jpg", "depth_00001.png"]) and not holds_pictures(["1.gif"])


def test_a_folder_of_pictures_and_something_else_is_no_video(tmp_path):
    write_pictures(tmp_path / "a", 0, frames=2)
    assert list_videos(tmp_path) == [tmp_path / "a"]
    (tmp_path / "a/film.mp4").write_bytes(b"x")
    assert list_videos(tmp_path) == [tmp_path / "a/film.mp4"]


def test_whatever_is_wrong_with_a_video_is_a_video_error(tmp_path):
    """So that one of them is left out and counted, and does not end the labeling of the others."""
    pointer = tmp_path / "a.mp4"
    pointer.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(VideoError, match=r"a\.mp4: .*git lfs pull"):
        probe(pointer)
    with pytest.raises(VideoError, match="File name too long"):
        probe(tmp_path / ("x" * 300 + ".mp4"))
    latin = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4"))
    write_clip(tmp_path / "b.mp4", 0).rename(latin)
    with pytest.raises(VideoError, match=r"caf\?\.mp4 is not UTF-8 text: rename it"):
        probe(latin)
    torn = write_pictures(tmp_path / "torn", 0, frames=4)
    (torn / "img_00002.jpg").write_bytes(b"\xff\xd8 junk")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(torn / "img_00004.jpg")
    for wanted, said in (([1], r"img_00002\.jpg: no picture"), ([0, 3], "of different sizes")):
        with pytest.raises(VideoError, match=said):
            decode_frames(torn, wanted)
    assert decode_frames(torn, [0, 2]).shape == (2, 32, 32, 3)
    for link in (tmp_path / "nowhere", tmp_path):
        (torn / "img_00003.jpg").unlink()
        (torn / "img_00003.jpg").symlink_to(link)
        with pytest.raises(VideoError, match="lacks picture 3 of 4"):
            probe(torn)
        assert file_stamp(torn) is None


def test_two_pictures_of_one_number(tmp_path):
    folder = write_pictures(tmp_path / "a", 0, frames=3)
    (folder / "img_00002.jpg").rename(folder / "1.jpg")
    with pytest.raises(VideoError, match="two pictures of one number"):
        probe(folder)


def test_pictures_of_16_bits(tmp_path):
    (tmp_path / "a").mkdir()
    Image.fromarray(np.full((8, 8), 0x1234, np.uint16)).save(tmp_path / "a/1.png")
    assert (decode_frames(tmp_path / "a", [0]) == 0x12).all()


def test_the_key_of_pictures(tmp_path):
    folder = write_pictures(tmp_path / "a", 0, frames=3)
    key = video_key(folder)
    assert key == video_key(Path(shutil.copytree(folder, tmp_path / "b")))
    shutil.copy(folder / "img_00001.jpg", folder / "img_00002.jpg")
    assert video_key(folder) != key
