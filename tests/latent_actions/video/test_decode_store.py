"""Decoding by index, damaged files, and the frame store."""

from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from invact_vla.core.errors import UserError
from invact_vla.core.files import hash_file, read_json
from invact_vla.data.video.frames import VideoError, decode_all, decode_frames, probe
from invact_vla.data.video.video_io import write_video
from latent_actions.video.records import ClipRecord, PairRecord
from latent_actions.video.store import FrameStore
from tests.data.films import write_film


def ramp(count: int, height: int = 32, width: int = 48) -> np.ndarray:
    """Frame k is gray of level 8 k."""
    levels = (8 * np.arange(count)).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (count, height, width, 3)).copy()


def clip(video: Path, number: int, start_s: float = 0.0, end_s: float = 1.0) -> ClipRecord:
    return ClipRecord(
        clip_id=f"c{number}", moment_id=f"m{number}", take="t", scene="s", view="ego",
        camera="aria01", verb="pick", text="picks", split="train", video=video,
        start_s=start_s, end_s=end_s,
    )  # fmt: skip


@pytest.fixture
def videos(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"v{k}.{suffix}" for k, suffix in enumerate(["mp4", "webm", "mp4"])]
    for path in paths:
        write_video(path, ramp(20), 10, "vp9" if path.suffix == ".webm" else "h264", 18)
    return paths


@pytest.mark.parametrize("number", [0, 1])
def test_probe_and_decode(videos, number):
    info = probe(videos[number])
    assert (info.n_frames, info.fps, info.height, info.width) == (20, 10.0, 32, 48)
    frames = decode_frames(videos[number], [19, 0, 7, 7])
    assert frames.shape == (4, 32, 48, 3)
    assert np.abs(frames.mean((1, 2, 3)) - [152, 0, 56, 56]).max() < 5
    assert len(decode_all(videos[number], size=16)) == 20


def test_crop_keeps_and_squash_loses_the_aspect(tmp_path):
    frames = np.zeros((2, 32, 64, 3), np.uint8)
    frames[:, :, :16], frames[:, :, 48:] = 255, 255  # white flanks outside the center square
    write_video(tmp_path / "wide.mp4", frames, 10, "h264", 10)
    assert decode_frames(tmp_path / "wide.mp4", [0], 32, "crop")[:, :, 2:-2].mean() < 8
    assert 110 < decode_frames(tmp_path / "wide.mp4", [0], 32, "squash").mean() < 145


@pytest.mark.parametrize("number", [0, 1])
def test_truncated_video_is_named(videos, number):
    path = videos[number]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(VideoError, match=path.name):
        decode_frames(path, [19])


def test_missing_and_foreign_files_are_named(tmp_path):
    with pytest.raises(VideoError, match=r"nowhere\.mp4"):
        probe(tmp_path / "nowhere.mp4")
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(VideoError, match=r"text\.mp4"):
        probe(tmp_path / "text.mp4")


def test_wanting_a_frame_after_the_end(videos):
    with pytest.raises(VideoError, match="ends after 20 frames, frame 20 was wanted"):
        decode_frames(videos[0], [20])


def test_store_holds_clips_and_pairs(videos, tmp_path):
    pair = PairRecord(video_id="e", video=videos[1], text="", frame=3, frame_end=17, fps=10.0)
    clips = [clip(videos[0], 0, 0.0, 0.8), clip(videos[0], 1, 1.2, 2.0)]
    store = FrameStore.build([*clips, pair], tmp_path / "store", frames=2, size=16, workers=1)
    assert store.frames.shape == (3, 2, 16, 16, 3) and len(store) == 3
    levels = store.batch([2, 0, 1]).mean((2, 3, 4)) / 8
    assert np.abs(levels - [[3, 17], [2, 6], [14, 18]]).max() < 0.6
    assert (store[2] == store.batch([2])[0]).all()
    assert FrameStore.open(tmp_path / "store").records == [*clips, pair]


def test_store_is_built_once_and_the_same_again(videos, tmp_path):
    records = [clip(path, k) for k, path in enumerate(videos)]
    first = FrameStore.build(records, tmp_path / "a", frames=4, size=16, workers=1)
    second = FrameStore.build(records, tmp_path / "b", frames=4, size=16, workers=2)
    for name in ("frames.npy", "records.json", "store.json"):
        assert hash_file(first.folder / name) == hash_file(second.folder / name)
    stamp = (first.folder / "frames.npy").stat().st_mtime_ns
    FrameStore.build(records, tmp_path / "a", frames=4, size=16, workers=1)
    assert (first.folder / "frames.npy").stat().st_mtime_ns == stamp
    FrameStore.build(records, tmp_path / "a", frames=5, size=16, workers=1)
    assert FrameStore.open(tmp_path / "a").frames.shape[1] == 5


def test_damaged_videos_are_skipped_up_to_a_limit(videos, tmp_path):
    videos[1].write_bytes(videos[1].read_bytes()[:300])
    records = [clip(path, k) for k, path in enumerate(videos)]
    with pytest.raises(UserError, match=r"1 of 3 videos are damaged.*v1\.webm"):
        FrameStore.build(records, tmp_path / "store", frames=2, size=16, workers=1)
    assert not (tmp_path / "store").exists()
    store = FrameStore.build(
        records, tmp_path / "store", frames=2, size=16, workers=1, max_skipped=0.5
    )
    assert [record.clip_id for record in store.records] == ["c0", "c2"]
    assert store.frames.shape[0] == 2 and "v1.webm" in store.skipped[0]
    whole = FrameStore.build(records[::2], tmp_path / "whole", frames=2, size=16, workers=1)
    assert (whole.frames == store.frames).all()


def test_clip_after_the_end_is_a_damaged_video(videos, tmp_path):
    with pytest.raises(UserError, match=r"clip c9 starts at 5\.00 s"):
        FrameStore.build([clip(videos[0], 9, 5.0, 6.0)], tmp_path / "s", workers=1)


def test_a_video_shorter_than_its_clip(videos, tmp_path):
    """The videos last 2 s: half of a clip must lie inside, and what lies outside is cut."""
    records = [
        clip(videos[0], 0, 0.5, 1.5), clip(videos[0], 1, 1.0, 2.8), clip(videos[0], 2, 1.5, 3.0),
        clip(videos[1], 3, 5.0, 6.0),
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"2 of 4 clips are damaged.*clip c2 starts at 1\.50 s"):
        FrameStore.build(records, tmp_path / "store", 4, 16, workers=1)
    for name, make in (
        ("store", FrameStore.build),
        ("lazy", partial(FrameStore.build, on_the_fly=True)),
    ):
        store = make(records, tmp_path / name, 4, 16, workers=1, max_skipped=0.5)
        assert [record.clip_id for record in store.records] == ["c0", "c1"]
        assert [(r.start_s, r.end_s) for r in store.records] == [(0.5, 1.5), (1.0, 2.0)]
        assert (
            make(records, tmp_path / name, 4, 16, workers=1, max_skipped=0.5).records
            == store.records
        )
        levels = store.batch([1]).mean((2, 3, 4))[0] / 8
        assert np.abs(levels - [11, 13, 16, 18]).max() < 0.6  # spread over what is there
        report = read_json(tmp_path / name / "report.json")["decoding"]
        assert report["dropped"]["shorter than the clip"]["count"] == 2
        assert "clip c1" in report["changed"]["cut at the end of the video"]["examples"][0]
        assert len(store.skipped) == 2


def test_missing_and_corrupt_videos_are_told_apart(videos, tmp_path):
    videos[1].write_bytes(videos[1].read_bytes()[:300])
    records = [clip(videos[0], 0), clip(videos[1], 1), clip(tmp_path / "gone.mp4", 2)]
    for name, make in (
        ("store", FrameStore.build),
        ("lazy", partial(FrameStore.build, on_the_fly=True)),
    ):
        store = make(records, tmp_path / name, 2, 16, workers=1, max_skipped=0.7)
        dropped = read_json(store.folder / "report.json")["decoding"]["dropped"]
        assert {reason: entry["count"] for reason, entry in dropped.items()} == {
            "corrupt videos": 1, "videos missing": 1,
        }  # fmt: skip
        assert len(store) == 1 and any("gone.mp4" in message for message in store.skipped)


@pytest.mark.parametrize(("codec", "suffix"), [("h264", "mp4"), ("vp9", "webm")])
@pytest.mark.parametrize("fps", [12, 29.97])
def test_jumping_to_a_frame_is_as_decoding_up_to_it(tmp_path, codec, suffix, fps):
    path = tmp_path / f"v.{suffix}"
    levels = np.tile(np.arange(0, 250, 8, dtype=np.uint8), 4)
    frames = np.broadcast_to(levels[:, None, None, None], (len(levels), 32, 32, 3))
    write_video(path, frames, fps, codec, gop=12)
    for first in (0, 1, 11, 12, 13, 50, 90, 120):
        wanted = [first, first + 5, first]
        slow = decode_frames(path, wanted, 16)
        assert (decode_frames(path, wanted, 16, seek=True) == slow).all(), first
    with pytest.raises(VideoError, match="frame 128 was wanted"):
        decode_frames(path, [128], seek=True)


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_numbers_in_an_avi_with_b_frames(tmp_path, codec):
    """MPEG-4 starts at time stamp 1, the header says 0; H.264's stamps are in the order of decoding."""
    import av

    path, levels = tmp_path / "v.avi", range(0, 240, 6)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options={"bf": "2", "g": "12", "b": "400000"})
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for level in levels:
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), level, np.uint8))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    info = probe(path)
    assert info.n_frames == 40 and info.duration_s == pytest.approx(4)
    for first in (0, 1, 2, 11, 12, 13, 20, 30, 36):
        wanted = [first, first + 3]
        for options in ({}, {"seek": True}, {"info": info}, {"info": info, "seek": True}):
            found = decode_frames(path, wanted, **options).mean(axis=(1, 2, 3))
            assert np.abs(found - np.array(levels)[wanted]).max() < 3, (first, options)


def test_frames_on_the_fly_are_those_of_the_store(videos, tmp_path):
    pair = PairRecord(video_id="e", video=videos[1], text="", frame=3, frame_end=17, fps=10.0)
    records = [clip(videos[0], 0, 0.0, 0.8), clip(videos[2], 1, 1.2, 2.0), pair]
    store = FrameStore.build(records, tmp_path / "store", 4, 16, workers=1)
    lazy = FrameStore.build(records, tmp_path / "lazy", 4, 16, workers=1, on_the_fly=True)
    assert lazy.frames.shape == store.frames.shape and lazy.frames.dtype == np.uint8
    assert (lazy.batch([2, 0, 2]) == store.batch([2, 0, 2])).all()
    assert (lazy[1] == store[1]).all() and (lazy.frames[:2] == store.frames[:2]).all()
    again = FrameStore.open(tmp_path / "lazy")
    assert again.records == records and (again[0] == store[0]).all()
    assert not (tmp_path / "lazy" / "frames.npy").exists()


def test_a_video_that_breaks_after_the_index_is_an_error_when_read(videos, tmp_path):
    lazy = FrameStore.build(
        [clip(videos[0], 0)], tmp_path / "lazy", 4, 16, workers=1, on_the_fly=True
    )
    videos[0].write_bytes(videos[0].read_bytes()[:300])
    with pytest.raises(VideoError, match=r"v0\.mp4"):
        lazy[0]


def test_seconds_of_a_variable_rate_on_both_ways(tmp_path):
    """10 frames a second, then 25: clips by time stamps, pairs with evenly spaced times between."""
    stamps = [*range(0, 1000, 100), *range(1000, 2000, 40)]
    video = write_film(tmp_path / "v.mp4", stamps)
    pair = PairRecord(video_id="e", video=video, text="", frame=2, frame_end=30, fps=17.5)
    records = [clip(video, 0, 0.0, 2.0), clip(video, 1, 0.8, 1.2), pair]
    store = FrameStore.build(records, tmp_path / "store", 5, 16, workers=1)
    lazy = FrameStore.build(records, tmp_path / "lazy", 5, 16, workers=1, on_the_fly=True)
    found = np.median(store.frames[:, :, 10:], axis=(2, 3, 4)) / 3
    times_ms = [[200, 600, 1000, 1400, 1800], [840, 920, 1000, 1080, 1160]]
    wanted = [[max(k for k in range(35) if stamps[k] <= time) for time in row] for row in times_ms]
    wanted += [[2, 6, 10, 20, 30]]  # at 0.2, 0.6, 1.0, 1.4 and 1.8 s
    assert np.abs(found - wanted).max() <= 0.7
    assert (lazy.batch([0, 1, 2]) == store.batch([0, 1, 2])).all()


def test_a_torn_store_is_built_again(videos, tmp_path):
    records = [clip(path, k) for k, path in enumerate(videos)]
    whole = FrameStore.build(records, tmp_path / "s", 2, 16, workers=1)
    expected = whole.batch([0, 1, 2])
    for name, content in [("frames.npy", None), ("store.json", b"{"), ("records.json", b"")]:
        path = tmp_path / "s" / name
        path.write_bytes(path.read_bytes()[:100] if content is None else content)
        again = FrameStore.build(records, tmp_path / "s", 2, 16, workers=1)
        assert (again.batch([0, 1, 2]) == expected).all(), name
    for other in (
        expected.astype(np.float32), expected.astype(np.int8), expected[:, :1], expected[:2],
        expected[:, :, :8, :8], expected[..., :1], np.uint8(3), expected.reshape(-1),
    ):  # fmt: skip
        np.save(tmp_path / "s/frames.npy", other)
        again = FrameStore.build(records, tmp_path / "s", 2, 16, workers=1)
        assert again.frames.dtype == np.uint8 and (again.batch([0, 1, 2]) == expected).all()


def test_a_video_of_equal_size_and_other_content_is_decoded_again(videos, tmp_path):
    records, size = [clip(videos[0], 0)], videos[0].stat().st_size + 1000
    for level in (8, 200):
        write_video(videos[0], np.full((20, 32, 48, 3), level, np.uint8), 10)
        content = videos[0].read_bytes()
        videos[0].write_bytes(content + bytes(size - len(content)))
        store = FrameStore.build(records, tmp_path / "s", 2, 16, workers=1)
        assert abs(store[0].mean() - level) < 4


def build_again_and_again(folder, records, level, told):
    """What differs from the frames of gray `level` that these records have."""
    try:
        for _ in range(20):
            store = FrameStore.build(records, folder, 2, 16, workers=1)
            if store.records != records or abs(store.batch([0]).mean() - level) > 4:
                told.put(f"frames of {store.batch([0]).mean()} for {level}")
        told.put("")
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told
        told.put(repr(error))


def test_processes_with_other_clips_share_a_folder(tmp_path):
    """One after the other: none gets the frames of another one's clips, and none ends."""
    context, jobs = get_context("fork"), []
    told = context.Queue()
    for number in range(3):
        write_video(tmp_path / f"{number}.mp4", np.full((9, 32, 32, 3), 80 * number, np.uint8), 10)
        records = [clip(tmp_path / f"{number}.mp4", number, 0.0, 0.8)]
        arguments = (tmp_path / "s", records, 80 * number, told)
        jobs.append(context.Process(target=build_again_and_again, args=arguments))
    for job in jobs:
        job.start()
    said = [told.get(timeout=120) for _ in jobs]
    for job in jobs:
        job.join()
    assert said == ["", "", ""]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_tags_and_parts_outlive_the_store(videos, tmp_path):
    record = replace(clip(videos[0], 0), tags={"leaf": "x", "r1": 0.5}, parts=((0.0, 0.4),))
    store = FrameStore.build([record], tmp_path / "store", 2, 16, workers=1)
    assert store.records == [record]
    plain = read_json(FrameStore.build([clip(videos[0], 0)], tmp_path / "p", 2, 16).folder
                      / "records.json")  # fmt: skip
    assert "tags" not in plain[0] and "parts" not in plain[0]


def test_empty_store_is_refused(tmp_path):
    with pytest.raises(UserError, match="no clips to decode"):
        FrameStore.build([], tmp_path / "s", workers=1)


def test_records_are_checked():
    good = clip(Path("v"), 0)
    with pytest.raises(ValueError, match="start_s < end_s"):
        replace(good, end_s=0.0)
    with pytest.raises(ValueError, match="view must be"):
        replace(good, view="aerial")
    with pytest.raises(ValueError, match="frame < frame_end"):
        PairRecord(video_id="e", video=Path("v"), text="", frame=3, frame_end=3, fps=10.0)
