"""Lengths of many videos: probed in parallel, and once only.

The cache is a JSON file, {path below its folder: [bytes, mtime in ns, frames, fps, height, width]};
a file whose size or time has changed is probed again. Videos that cannot be read are not cached.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from tqdm import tqdm

from invact_vla.core.files import read_json, write_json
from invact_vla.data.video.decode import VideoError, VideoInfo, probe
from latent_actions.video.workers import run_parallel

logger = logging.getLogger(__name__)
PROBES = ".probes.json"  # name of a cache
CHUNK = 64  # videos a job
Probed: TypeAlias = VideoInfo | VideoError


def probe_all(
    videos: Sequence[Path], workers: int = 1, cache: Path | None = None
) -> dict[Path, Probed]:
    """{video: its length, or the error that reading it gave}; equal for any number of workers."""
    known = _load(cache, videos)
    todo = [video for video in dict.fromkeys(videos) if video not in known]
    chunks = [todo[i : i + CHUNK] for i in range(0, len(todo), CHUNK)]
    found: dict[Path, Probed] = {}
    few = len(todo) <= CHUNK
    with tqdm(
        total=len(todo), desc="probe", unit="video", mininterval=1.0, leave=False, disable=few
    ) as bar:
        for chunk in run_parallel(_probe_chunk, chunks, workers):
            found.update(chunk)
            bar.update(len(chunk))
    if cache is not None and any(isinstance(value, VideoInfo) for value in found.values()):
        _save(cache, known | found)
    return known | found


def _probe_chunk(videos: list[Path]) -> list[tuple[Path, Probed]]:
    return [(video, _probe(video)) for video in videos]


def _probe(video: Path) -> Probed:
    try:
        return probe(video)
    except VideoError as error:
        return error


def _stamp(video: Path) -> tuple[int, int] | None:
    """(bytes, time of change) of a file; of the file around it if the video lies inside one."""
    for path in (video, *video.parents[:3]):
        if path.is_file():
            stat = path.stat()
            return stat.st_size, stat.st_mtime_ns
    return None


def _load(cache: Path | None, videos: Sequence[Path]) -> dict[Path, Probed]:
    if cache is None or not cache.exists():
        return {}
    rows, folder = read_json(cache), cache.parent
    known: dict[Path, Probed] = {}
    for video in videos:
        row = rows.get(_key(video, folder))
        if row is not None and _stamp(video) == (row[0], row[1]):
            known[video] = VideoInfo(*row[2:])
    return known


def _save(cache: Path, probed: dict[Path, Probed]) -> None:
    """Add to the cache; a folder that may not be written is no error, only slower next time."""
    rows = read_json(cache) if cache.exists() else {}
    for video, info in probed.items():
        stamp = _stamp(video)
        if isinstance(info, VideoInfo) and stamp is not None:
            size = (info.n_frames, info.fps, info.height, info.width)
            rows[_key(video, cache.parent)] = [*stamp, *size]
    try:
        write_json(cache, rows)
    except OSError:
        logger.info("lengths of videos are not kept: %s may not be written", cache.parent)


def _key(video: Path, folder: Path) -> str:
    return video.relative_to(folder).as_posix() if video.is_relative_to(folder) else str(video)
