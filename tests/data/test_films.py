"""Films of phones and cutting tools: the frames at the asked times, on both ways of decoding."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from invact_vla.data.video.frames import (
    VideoError,
    decode_all,
    decode_frames,
    open_video,
    probe,
)
from tests.data.films import HEIGHT, WIDTH, cut_film, on_screen, picture, read_slowly, write_film


def decode_at(path: Path, times_s: Sequence[float], seek: bool) -> np.ndarray:
    """The frames on screen at the given seconds."""
    with open_video(path) as video:
        return video.frames(video.info.frames_at(times_s), seek=seek)


STEADY = [100 * k for k in range(60)]
# as a phone in the dark: 10 frames a second, then 4, then 25, and a pause
CHANGING = np.cumsum([0, *[100] * 15, *[250] * 10, *[40] * 30, 1700, *[100] * 4]).tolist()
OPEN_GOP = {"x264-params": "open-gop=1:keyint=12:min-keyint=12:bframes=3:b-adapt=0:scenecut=0"}
CODECS = {
    "h264.mp4": ("libx264", {"g": "12", "bf": "3"}),
    "open.mp4": ("libx264", OPEN_GOP),
    "h264.mkv": ("libx264", {"g": "12", "bf": "2"}),
    "open.mkv": ("libx264", OPEN_GOP),
    "h264.ts": ("libx264", {"g": "12", "bf": "2"}),
    "hevc.mp4": ("libx265", {"x265-params": "open-gop=1:keyint=12:bframes=3:log-level=none"}),
    "vp9.webm": ("libvpx-vp9", {"g": "12", "deadline": "realtime", "cpu-used": "8"}),
    "mpeg4.mov": ("mpeg4", {"g": "12", "bf": "2", "b": "400000"}),
}  # fmt: skip
ASKED_S = (0.0, 0.05, 0.31, 1.49, 1.51, 2.2, 3.97, 4.6, 5.3)


def make(folder: Path, name: str, stamps: list[int]) -> Path:
    codec, options = CODECS[name]
    return write_film(folder / name, stamps, codec, options)


def levels_of(frames: np.ndarray) -> np.ndarray:
    return np.median(frames[:, frames.shape[1] // 2 + 2 :], axis=(1, 2, 3))


@pytest.mark.parametrize("stamps", [STEADY, CHANGING], ids=["steady", "changing"])
@pytest.mark.parametrize("name", CODECS)
def test_frames_at_the_asked_times(tmp_path, name, stamps):
    path = make(tmp_path, name, stamps)
    seconds, levels = read_slowly(path)
    info = probe(path)
    assert info.n_frames == len(seconds) == len(stamps)
    assert bool(info.times) == (stamps is CHANGING)
    assert info.times_of(range(len(stamps))) == pytest.approx(seconds, abs=0.0011)
    wanted = on_screen(seconds, ASKED_S)
    assert info.frames_at(ASKED_S).tolist() == wanted
    whole, sought = (decode_at(path, ASKED_S, seek=seek) for seek in (False, True))
    assert (whole == sought).all()
    assert np.abs(levels_of(whole) - levels[wanted]).max() == 0
    assert np.abs(levels[wanted] - 3 * np.array(wanted)).max() <= 4  # and these are the right ones


@pytest.mark.parametrize("stamps", [STEADY, CHANGING], ids=["steady", "changing"])
@pytest.mark.parametrize("name", CODECS)
def test_jumping_to_any_frame_is_as_decoding_up_to_it(tmp_path, name, stamps):
    path = make(tmp_path, name, stamps)
    everything = decode_all(path)
    assert len(everything) == len(stamps)
    for first in range(0, len(stamps) - 1, 3):
        found = decode_frames(path, [first + 1, first], seek=True)
        assert (found == everything[[first + 1, first]]).all(), first
    with open_video(path) as video:  # one open file, in any order, after its packets were read
        assert video.info.n_frames == len(stamps)
        for first in (40, 2, 23):
            assert (video.frames([first]) == everything[[first]]).all(), first
            assert (video.frames([first], seek=True) == everything[[first]]).all(), first


@pytest.mark.parametrize("stamps", [STEADY, CHANGING], ids=["steady", "changing"])
@pytest.mark.parametrize("name", ["h264.mp4", "mpeg4.mov"])
@pytest.mark.parametrize("at_s", [1.55, 3.1])
def test_a_film_cut_without_encoding_is_whole(tmp_path, name, stamps, at_s):
    source = make(tmp_path, name, stamps)
    path = cut_film(source, tmp_path / f"cut_{name}", at_s)
    seconds, levels = read_slowly(path)
    info = probe(path)
    hidden = len(stamps) - len(seconds)
    assert 10 < hidden < 50 and info.n_frames == len(seconds) == len(decode_all(path))
    assert info.times_of(range(len(seconds))) == pytest.approx(seconds, abs=0.0011)
    times_s = [0.0, 0.13, seconds[-1] / 2, seconds[-1]]
    wanted = on_screen(seconds, times_s)
    for seek in (False, True):
        found = levels_of(decode_at(path, times_s, seek=seek))
        assert np.abs(found - levels[wanted]).max() == 0
        assert np.abs(found - 3 * (hidden + np.array(wanted))).max() <= 4
        with pytest.raises(VideoError, match=f"ends after {info.n_frames} frames"):
            decode_frames(path, [info.n_frames], seek=seek)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("flip", [(False, False), (True, False), (False, True)])
def test_a_turned_film_stands_upright(tmp_path, rotation, flip):
    path = write_film(
        tmp_path / "v.mp4", STEADY[:20], options={"g": "6"}, rotation=rotation, flip=flip
    )
    shown = np.rot90(picture(3 * 13), rotation // 90)  # counterclockwise
    shown = shown[:: -1 if flip[1] else 1, :: -1 if flip[0] else 1]
    for seek in (False, True):
        frames = decode_frames(path, [13], seek=seek)
        assert frames.shape[1:3] == ((HEIGHT, WIDTH) if rotation % 180 == 0 else (WIDTH, HEIGHT))
        assert np.abs(frames[0].astype(int) - shown).mean() < 6
        side = (frames.shape[2] - HEIGHT) // 2, (frames.shape[1] - HEIGHT) // 2
        square = shown[side[1] : side[1] + HEIGHT, side[0] : side[0] + HEIGHT]
        cut = decode_frames(path, [13], HEIGHT, seek=seek)[0]
        assert np.abs(cut.astype(int) - square).mean() < 6
        squashed = decode_frames(path, [13], 24, "squash", seek=seek)[0].astype(int)
        corners = squashed[[3, 3, -4, -4], [3, -4, 3, -4]].mean(-1)
        ends = [0, 0, -1, -1], [0, -1, 0, -1]
        assert np.abs(corners - shown[ends].mean(-1)).max() < 12
    assert np.abs(decode_all(path)[13].astype(int) - shown).mean() < 6


@pytest.mark.parametrize(
    ("aspect", "shape"), [(Fraction(2), (48, 128)), (Fraction(1, 2), (96, 64))]
)
def test_pixels_that_are_not_square(tmp_path, aspect, shape):
    path = write_film(tmp_path / "v.mp4", STEADY[:10], pixel_aspect=aspect)
    for seek in (False, True):
        assert decode_frames(path, [3], seek=seek).shape[1:3] == shape
        # the center of a crop: white to the left, black to the right, gray below
        cut = decode_frames(path, [3], 48, seek=seek)[0].mean(-1)
        across = np.flatnonzero(np.diff((cut[6] > 128).astype(int)))
        assert across.tolist() == [23]
    turned = write_film(tmp_path / "t.mp4", STEADY[:10], rotation=90, pixel_aspect=aspect)
    assert decode_all(turned).shape[1:3] == shape[::-1]


def test_rates_are_told_and_durations_add_up(tmp_path):
    info = probe(write_film(tmp_path / "a.mp4", STEADY))
    assert info.fps == pytest.approx(10) and info.duration_s == pytest.approx(6.0)
    info = probe(write_film(tmp_path / "b.mp4", CHANGING))
    assert info.times[-1] == CHANGING[-1] / 1000
    assert CHANGING[-1] / 1000 < info.duration_s < CHANGING[-1] / 1000 + 0.5
    assert info.nearest([1.6, 1.62, 1.63]).tolist() == [15, 15, 16]


def test_a_film_without_its_index_is_truncated(tmp_path):
    path = write_film(tmp_path / "v.mp4", STEADY)
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"moov") - 8])
    with pytest.raises(VideoError, match=r"whole video file|truncated"):
        probe(path)


@pytest.mark.parametrize(
    ("name", "codec"),
    [("v.mp4", "libx264"), ("v.mkv", "libx264"), ("v.webm", "libvpx-vp9"), ("v.avi", "mpeg4")],
)
def test_a_film_that_breaks_off_is_truncated(tmp_path, name, codec):
    """And not a shorter film of the same action."""
    stamps = STEADY if name != "v.avi" else range(60)  # of 1 ms: AVI has constant rates alone
    options = {"movflags": "faststart"} if name == "v.mp4" else None
    path = write_film(tmp_path / name, stamps, codec, {"g": "10"}, container_options=options)
    assert probe(path).n_frames == 60
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    with pytest.raises(VideoError, match="truncated"):
        probe(path)
