"""Lengths of many videos: probed in parallel, and once only.

The cache is a JSON file, {"version": of probing, "videos": {path below its folder: [bytes, mtime in ns,
and the fields of VideoInfo]}}; a file whose size or time has changed is probed again, and all are if
the cache is damaged or of another version. Videos that cannot be read are not cached.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any, TypeAlias

from tqdm import tqdm

from invact_vla.core.errors import UserError
from invact_vla.core.files import read_json, write_json
from invact_vla.data.video.frames import VideoError, file_stamp, probe
from invact_vla.data.video.video_info import VERSION, VideoInfo
from latent_actions.video.workers import run_parallel

logger = logging.getLogger(__name__)
PROBES = ".probes.json"  # name of a cache
CHUNK = 64  # videos a job
Probed: TypeAlias = VideoInfo | VideoError


def probe_all(
    videos: Sequence[Path], workers: int = 1, cache: Path | None = None
) -> dict[Path, Probed]:
    """{video: its length, or the error that reading it gave}; equal for any number of workers."""
    rows: dict[str, Any] = {}
    found: dict[Path, Probed] = {}
    if cache is not None:
        rows = _rows(cache)
        known = {video: _known(rows.get(_key(video, cache.parent)), video) for video in videos}
        found |= {video: info for video, info in known.items() if info is not None}
    todo = [video for video in dict.fromkeys(videos) if video not in found]
    chunks = [todo[i : i + CHUNK] for i in range(0, len(todo), CHUNK)]
    bar = tqdm(total=len(todo), desc="probe", unit="video", leave=False, disable=len(todo) <= CHUNK)
    for chunk in run_parallel(_probe_chunk, chunks, workers):
        found.update(chunk)
        bar.update(len(chunk))
    bar.close()
    if cache is not None and any(isinstance(found[video], VideoInfo) for video in todo):
        _save(cache, rows, found)
    return found


def _probe_chunk(videos: list[Path]) -> list[tuple[Path, Probed]]:
    return [(video, _probe(video)) for video in videos]


def _probe(video: Path) -> Probed:
    try:
        return probe(video)
    except VideoError as error:
        return error


def _rows(cache: Path) -> dict[str, Any]:
    """What a cache holds; nothing if it is damaged or of another version: it is then made anew."""
    try:
        content = read_json(cache)
    except UserError:
        return {}
    if not isinstance(content, dict) or content.get("version") != VERSION:
        return {}
    rows = content.get("videos")
    return rows if isinstance(rows, dict) else {}


def _known(row: Any, video: Path) -> VideoInfo | None:
    """The length that a row of a cache holds, if the video is as it was."""
    try:
        size, mtime, *values, times = row
        info = VideoInfo(*values, times=tuple(map(float, times)))
        numbers = [info.fps, info.height, info.width, info.start_s or 0.0, *info.times]
        whole = type(info.n_frames) is int and len(info.times) in (0, info.n_frames)
        if whole and info.n_frames > 0 and info.fps > 0 and all(map(math.isfinite, numbers)):
            return info if file_stamp(video) == (size, mtime) else None
    except (TypeError, ValueError):
        pass
    return None


def _save(cache: Path, rows: dict[str, Any], probed: dict[Path, Probed]) -> None:
    """Add to the cache; a folder that may not be written is no error, only slower next time."""
    for video, info in probed.items():
        stamp = file_stamp(video)
        if isinstance(info, VideoInfo) and stamp is not None:
            rows[_key(video, cache.parent)] = [*stamp, *astuple(info)]
    try:
        write_json(cache, {"version": VERSION, "videos": rows})
    except OSError:
        logger.info("lengths of videos are not kept: %s may not be written", cache.parent)


def _key(video: Path, folder: Path) -> str:
    return video.relative_to(folder).as_posix() if video.is_relative_to(folder) else str(video)
