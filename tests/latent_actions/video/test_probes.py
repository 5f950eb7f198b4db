"""Lengths of videos: parallel, kept, and never wrong when a file changes."""

from pathlib import Path

import numpy as np
import pytest

from invact_vla.data.video.decode import VideoError, VideoInfo
from invact_vla.data.video.video_io import write_video
from latent_actions.video import probes
from latent_actions.video.probes import PROBES, probe_all


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
