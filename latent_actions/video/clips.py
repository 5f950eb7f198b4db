"""Index arithmetic: which frames of a video make a clip or a pair. No decoding, no randomness of
its own.

Frame k of a video at `fps` is on screen during [k / fps, (k + 1) / fps); where the rate varies, from its
presentation time to that of the next frame.
"""

import math
import zlib
from collections.abc import Sequence

import numpy as np

from invact_vla.data.video.video_info import EARLY_S, VideoInfo


def clip_frames(
    start_s: float,
    end_s: float,
    fps: float,
    n_frames: int,
    count: int,
    times: Sequence[float] = (),
) -> np.ndarray:
    """`count` frames spread over [start_s, end_s): the frames on screen at the midpoints of equal
    parts. times: seconds of all frames where the rate varies (fps: the mean rate).

    Returns int64 (count,), non-decreasing, each in [0, n_frames - 1]; a clip that ends after the
    video is cut at its end. Raises ValueError if the clip starts after the last frame.
    Span sampling of 8 frames, as the InvAct page's clips (spec: input, "clip.fps: span").
    """
    if count < 1 or n_frames < 1 or fps <= 0:
        raise ValueError(
            f"count, n_frames and fps must be positive, got {count}, {n_frames}, {fps}"
        )
    if not 0 <= start_s < end_s:
        raise ValueError(f"expected 0 <= start_s < end_s, got {start_s} and {end_s}")
    duration_s = n_frames / fps
    if start_s >= duration_s:
        raise ValueError(f"clip starts at {start_s:.3f} s, the video ends at {duration_s:.3f} s")
    end_s = min(end_s, duration_s)
    middles_s = start_s + (np.arange(count) + 0.5) * (end_s - start_s) / count
    return VideoInfo(n_frames, fps, 0, 0, times=tuple(times)).frames_at(middles_s)


def pair_frames(
    frame: int, frame_end: int, count: int, info: VideoInfo | None = None
) -> np.ndarray:
    """`count` frames from `frame` to `frame_end`, both included, evenly spaced: int64 (count,).

    count = 2 gives exactly the pair. info: of a video whose rate varies: evenly spaced in time.
    """
    if not 0 <= frame < frame_end:
        raise ValueError(f"expected 0 <= frame < frame_end, got {frame} and {frame_end}")
    if count < 2:
        raise ValueError(f"a pair needs at least 2 frames, got {count}")
    if info is None or not info.times:
        return np.rint(np.linspace(frame, frame_end, count)).astype(np.int64)
    first_s, last_s = info.times_of([frame, frame_end])
    return info.nearest(np.linspace(first_s, last_s, count))


def horizon_frames(horizon_s: float, fps: float) -> int:
    """The horizon H in frames: `horizon_s` seconds rounded to the nearest frame, at least 1."""
    if horizon_s <= 0 or fps <= 0:
        raise ValueError(f"horizon and fps must be positive, got {horizon_s} s at {fps} fps")
    return max(1, math.floor(horizon_s * fps + 0.5))


def pair_starts(n_frames: int, horizon: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """First frames t of up to `count` distinct pairs (t, t + horizon) with t + horizon <= n_frames
    - 1.

    Returns sorted int64 (k,): k = count where the video is long enough, fewer in a short video, 0
    if no pair fits. One start is drawn in each of `count` equal strata, so pairs cover the whole
    video.
    """
    if horizon < 1 or count < 1:
        raise ValueError(f"horizon and count must be positive, got {horizon} and {count}")
    possible = n_frames - horizon
    if possible <= 0:
        return np.zeros(0, np.int64)
    return _strata(possible, count, rng)


def timed_pairs(
    info: VideoInfo,
    start_s: float,
    end_s: float,
    horizon_s: float,
    count: int,
    rng: np.random.Generator,
) -> list[tuple[int, int, float]]:
    """Up to `count` pairs (frame, frame_end, fps) inside [start_s, end_s), (frame_end - frame) / fps
    seconds apart: horizon_s, rounded to the nearest frame of a constant rate.

    Where the rate varies, the second frame is the one that appears nearest to horizon_s later; starts
    without one within 10 % of the horizon, or half a mean frame, are left out.
    """
    if not info.times:
        first = round(start_s * info.fps)
        length = min(round(end_s * info.fps), info.n_frames) - first
        horizon = horizon_frames(horizon_s, info.fps)
        starts = first + pair_starts(max(length, 0), horizon, count, rng)
        return [(start, start + horizon, info.fps) for start in starts.tolist()]
    times = np.asarray(info.times)
    frames = np.flatnonzero((times >= start_s - EARLY_S) & (times < end_s - EARLY_S))
    ends = info.nearest(times[frames] + horizon_s)
    apart_s = times[ends] - times[frames]
    near = np.abs(apart_s - horizon_s) <= max(0.1 * horizon_s, 0.5 / info.fps)
    possible = np.flatnonzero(near & (ends > frames) & np.isin(ends, frames))
    if not len(possible):
        return []
    rows = possible[_strata(len(possible), count, rng)]
    starts, ends, apart_s = frames[rows], ends[rows], apart_s[rows]
    return list(
        zip(starts.tolist(), ends.tolist(), ((ends - starts) / apart_s).tolist(), strict=True)
    )


def _strata(possible: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """An index below `possible` from each of `count` equal parts: sorted int64, at most `possible`."""
    count = min(count, possible)
    edges = np.floor(np.arange(count + 1) * possible / count).astype(np.int64)
    return edges[:-1] + np.floor(rng.random(count) * np.diff(edges)).astype(np.int64)


def episode_rng(seed: int, episode: str) -> np.random.Generator:
    """A random stream of one episode, independent of which others are read and in what order."""
    return np.random.default_rng([seed, zlib.crc32(episode.encode())])
