"""Lengths of videos: parallel, kept, and never wrong when a file changes."""

import json
from pathlib import Path

import numpy as np
import pytest

from invact_vla.data.video.frames import VideoError
from invact_vla.data.video.video_info import VERSION, VideoInfo
from invact_vla.data.video.video_io import write_video
from latent_actions.video import probes
from latent_actions.video.probes import PROBES, probe_all
from tests.data.films import write_film


def write(path: Path, frames: int) -> Path:
    write_video(path, np.zeros((frames, 32, 32, 3), np.uint8), 10)
    return path


def test_errors_are_values_and_are_not_kept(tmp_path):
    good, bad = write(tmp_path / "a.mp4", 5), tmp_path / "b.mp4"
    bad.write_bytes(b"no video")
    found = probe_all([good, bad, good], cache=tmp_path / PROBES)
    assert found[good] == VideoInfo(5, 10.0, 32, 32) and isinstance(found[bad], VideoError)
    write(bad, 3)
    assert probe_all([bad], cache=tmp_path / PROBES)[bad] == VideoInfo(3, 10.0, 32, 32)


def test_a_known_video_is_not_read_again_until_it_changes(tmp_path, monkeypatch):
    video, cache = write(tmp_path / "a.mp4", 5), tmp_path / PROBES
    first = probe_all([video], cache=cache)
    monkeypatch.setattr(probes, "probe", lambda path: pytest.fail(f"read {path} again"))
    assert probe_all([video], cache=cache) == first
    monkeypatch.undo()
    write(video, 7)
    assert probe_all([video], cache=cache)[video] == VideoInfo(7, 10.0, 32, 32)


def test_chunks_over_processes_give_the_same(tmp_path, monkeypatch):
    videos = [write(tmp_path / f"{k}.mp4", 2 + k) for k in range(4)]
    monkeypatch.setattr(probes, "CHUNK", 2)
    assert probe_all(videos, workers=2) == probe_all(videos, workers=1)


def test_a_folder_that_may_not_be_written_only_costs_time(tmp_path, monkeypatch):
    video = write(tmp_path / "a.mp4", 5)

    def refuse(path, value):
        raise PermissionError(13, "no", str(path))

    monkeypatch.setattr(probes, "write_json", refuse)
    assert probe_all([video], cache=tmp_path / PROBES) == {video: VideoInfo(5, 10.0, 32, 32)}


def test_times_of_a_variable_rate_are_kept(tmp_path):
    video, cache = write_film(tmp_path / "a.mp4", [0, 40, 300, 340, 900]), tmp_path / PROBES
    first = probe_all([video], cache=cache)[video]
    assert isinstance(first, VideoInfo) and first.times == (0.0, 0.04, 0.3, 0.34, 0.9)
    assert probe_all([video], cache=cache)[video] == first


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"videos": 3, "version": VERSION}',
        '{"a.mp4": [BYTES, TIME, 4, 10.0, 32, 32]}',  # of an older version
        '{"version": 1, "videos": {"a.mp4": [BYTES, TIME, 4, 10.0, 32, 32, 0.0, []]}}',
        '{"version": VERSION, "videos": {"a.mp4": [BYTES, TIME]}}',
        '{"version": VERSION, "videos": {"a.mp4": 7}}',
        '{"version": VERSION, "videos": {"a.mp4": [BYTES, TIME, 4, 10.0, 32, 32, 0.0, 5]}}',
        '{"version": VERSION, "videos": {"a.mp4": [BYTES, TIME, "4", 10.0, 32, 32, 0.0, []]}}',
        '{"version": VERSION, "videos": {"a.mp4": [BYTES, TIME, 0, 10.0, 32, 32, 0.0, []]}}',
        '{"version": VERSION, "videos": {"a.mp4": [BYTES, TIME, 4, 0.0, 32, 32, 0.0, []]}}',
        '{"version": VERSION, "videos": {"a.mp4": [BYTES, TIME, 4, NaN, 32, 32, 0.0, []]}}',
        '{"version": VERSION, "videos": {"a.mp4": [BYTES, TIME, 4, 10.0, null, 32, 0.0, []]}}',
        '{"version": VERSION, "videos": {"a.mp4": [BYTES, TIME, 4, 10.0, 32, 32, "x", []]}}',
        '{"version": VERSION, "videos": {"a.mp4": [BYTES, TIME, 4, 10.0, 32, 32, 0.0, [0.0, 0.2]]}}',
    ],
)
def test_a_damaged_or_old_cache_is_made_anew(tmp_path, content):
    video, cache = write(tmp_path / "a.mp4", 5), tmp_path / PROBES
    stat = video.stat()
    content = content.replace("BYTES", str(stat.st_size)).replace("TIME", str(stat.st_mtime_ns))
    content = content.replace("VERSION", str(VERSION))
    cache.write_text(content)
    assert probe_all([video], cache=cache) == {video: VideoInfo(5, 10.0, 32, 32)}
    assert list(json.loads(cache.read_text())["videos"]) == ["a.mp4"]
