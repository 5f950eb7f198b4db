"""When the frames of a video are on screen: their count, rate and presentation times.

Frame k is the k-th frame that a player shows, from 0: packets that an edit list hides are not counted.
Seconds run from the presentation time of frame 0.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

VERSION = 3  # of what a probe tells; what was kept under another version is made anew
EARLY_S = 1e-6  # a time that is this little before a frame counts as the frame's: 0.1 + 0.2 s


@dataclass(frozen=True)
class VideoInfo:
    """Length of a video. n_frames: frames shown. fps: their constant or mean rate, so that n_frames /
    fps is the duration. height, width: pixels as stored, before rotation and pixel aspect; 0 where
    only the pictures tell. start_s: time stamp of frame 0; None: told by the first decoded frame alone.
    times: seconds of every frame where the rate varies; empty where frame k is at k / fps."""

    n_frames: int
    fps: float
    height: int
    width: int
    start_s: float | None = 0.0
    times: tuple[float, ...] = ()

    @cached_property
    def _times(self) -> np.ndarray:
        return np.asarray(self.times, np.float64)

    @property
    def duration_s(self) -> float:
        return self.n_frames / self.fps

    def times_of(self, frames: Sequence[int] | np.ndarray) -> np.ndarray:
        """Seconds at which frames appear: int (n,) -> float64 (n,)."""
        frames = np.asarray(frames, np.int64)
        return self._times[frames] if self.times else frames / self.fps

    def frames_at(self, times_s: Sequence[float] | np.ndarray) -> np.ndarray:
        """The frames on screen at the given seconds, float (n,) -> int64 (n,), within the video."""
        times_s = np.asarray(times_s, np.float64)
        if self.times:
            found = np.searchsorted(self._times, times_s + EARLY_S, side="right") - 1
        else:  # 1e-6 of a frame: 0.3 s * 10 fps is frame 3, not 2.9999999
            found = np.floor(times_s * self.fps + 1e-6)
        return np.clip(found.astype(np.int64), 0, self.n_frames - 1)

    def nearest(self, times_s: Sequence[float] | np.ndarray) -> np.ndarray:
        """The frames that appear nearest to the given seconds, float (n,) -> int64 (n,), not cut at
        the end of a video of constant rate."""
        times_s = np.asarray(times_s, np.float64)
        if not self.times:
            return np.rint(times_s * self.fps).astype(np.int64)
        middles = (self._times[1:] + self._times[:-1]) / 2
        return np.searchsorted(middles, times_s, side="right").astype(np.int64)


def clip_frames(
    start_s: float, end_s: float, fps: float, n_frames: int, count: int, times: Sequence[float] = ()
) -> np.ndarray:
    """`count` frames spread over [start_s, end_s): the frames on screen at the midpoints of equal
    parts. times: seconds of all frames where the rate varies (fps: the mean rate).

    Returns int64 (count,), non-decreasing, each in [0, n_frames - 1]; a clip that ends after the
    video is cut at its end. Raises ValueError if the clip starts after the last frame.
    Span sampling of 8 frames, as the InvAct page's clips (spec: input, "clip.fps: span")."""
    if count < 1 or n_frames < 1 or fps <= 0:
        raise ValueError(f"count, n_frames, fps must be positive: {count}, {n_frames}, {fps}")
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

    count = 2 gives exactly the pair. info: of a video whose rate varies: evenly spaced in time."""
    if not 0 <= frame < frame_end:
        raise ValueError(f"expected 0 <= frame < frame_end, got {frame} and {frame_end}")
    if count < 2:
        raise ValueError(f"a pair needs at least 2 frames, got {count}")
    if info is None or not info.times:
        return np.rint(np.linspace(frame, frame_end, count)).astype(np.int64)
    first_s, last_s = info.times_of([frame, frame_end])
    return info.nearest(np.linspace(first_s, last_s, count))


def read_info(
    packets: Iterable[Any], stream: Any, first_decoded: Callable[[], int | None]
) -> VideoInfo | None:
    """What the time stamps of all packets and the header tell; None without frames or a rate.

    first_decoded: gives the time stamp (ticks) of the first frame that decoding gives; asked where the
    packets do not tell it. The rate is constant if every frame is within a tick of k / fps, with the
    header's rate or the mean."""
    size, tick = (stream.height, stream.width), float(stream.time_base)
    rates = [float(rate) for rate in (stream.average_rate, stream.guessed_rate) if rate]
    shown: list[tuple[int | None, int]] = []  # time stamp and duration, in ticks
    key: int | None = None  # of the first packet, if decoding can begin there
    for number, packet in enumerate(packets):
        if number == 0 and packet.is_keyframe:
            key = packet.pts
        if packet.size and not packet.is_discard:
            shown.append((packet.pts, packet.duration or 0))
    ordered = sorted((pts, ticks) for pts, ticks in shown if pts is not None)
    stamps = [pts for pts, _ in ordered] if len(ordered) == len(shown) else []
    if stamps and key is not None and key <= stamps[0]:
        start = stamps[0]
    else:
        start = first_decoded() if shown else None
        stamps = [pts for pts in stamps if start is not None and pts >= start]
    start_s = None if start is None else start * tick
    if not stamps:
        return VideoInfo(len(shown), rates[0], *size, start_s) if shown and rates else None
    seconds = (np.array(stamps, np.int64) - stamps[0]) * tick
    count = len(seconds)
    if count > 1 and seconds[-1] > 0:
        rates.append((count - 1) / seconds[-1])
    for rate in rates:
        if np.abs(seconds - np.arange(count) / rate).max() <= tick * 1.001:
            return VideoInfo(count, rate, *size, start_s)
    if not rates:
        return None
    duration_s = seconds[-1] + (ordered[-1][1] * tick or 1 / rates[-1])
    times = tuple(np.round(seconds, 6).tolist())
    return VideoInfo(count, count / duration_s, *size, start_s, times)
