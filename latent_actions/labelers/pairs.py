"""Which pairs of frames are labeled, and their frames, shard by shard, for labeling and LAQ training.

A pair (t, t + H) lies inside its clip: t + H <= T - 1, never clamped to the last frame (clamping gives
most pairs of Something-Something V2 another horizon). Pairs are a function of the config and the videos:
each clip draws from (seed, its moment), so all cameras of a moment get the same. A shard is a fixed run
of the pairs, so a killed stage repeats at most one of them.
"""

import math
import shutil
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from invact_vla.core.errors import UserError
from invact_vla.core.files import hash_json
from invact_vla.data.video.display import Fit
from invact_vla.data.video.frames import VideoError, decode_frames
from invact_vla.data.video.video_info import EARLY_S, VideoInfo
from latent_actions.video.records import ClipRecord, PairRecord, Split
from latent_actions.video.skip_report import SkipReport, damage_of
from latent_actions.video.source import SourceConfig
from latent_actions.video.store import FrameStore
from latent_actions.video.workers import run_parallel

MOTION_PX = (
    32  # side of the frames that motion is measured on: noise of sensor and codec averages out
)


@dataclass(frozen=True, kw_only=True)
class PairConfig:
    """Which pairs of a source, and how they are decoded. Equal values give equal pairs."""

    source: SourceConfig  # where the videos are
    # seconds from the first to the second frame; 2.4: LAPA's on SSV2, whose clips last 2-6 s and often
    # begin still; robot data move at once: 0.6
    horizon_s: float = 2.4
    # each pair's horizon is drawn from horizon_s * (1 - jitter) to (1 + jitter); 0: one horizon, as LAPA
    # and UniVLA, so that codes differ by the motion and not by the time it had
    horizon_jitter: float = 0.0
    pairs_per_clip: int = (
        4  # pairs per clip, at most, one drawn in each of as many parts of the clip
    )
    # mean absolute difference of the two frames, of 1, below which a pair is a no-op: about twice what
    # noise and compression make of a still camera's still scene
    noop_motion: float = 0.01
    # fraction of the pairs that may be no-ops, the others are left out; 1: none is looked for, as LAPA
    # labels every pair; what stands still takes codes from what moves, so SSV2's configs say 0.1
    max_noop_fraction: float = 1.0
    seed: int = 0  # decides which
    frames: int = 8  # frames decoded per pair, both ends included
    size: int | None = None  # side of the decoded frames, pixels; none: as the labeler was trained
    fit: Fit | None = None  # crop the center | squash the whole frame; none: as it was trained
    shard: int = 512  # pairs per shard

    def __post_init__(self) -> None:
        if not 0 < self.horizon_s < math.inf:
            raise ValueError(f"horizon_s must be positive, got {self.horizon_s}")
        if not 0 <= self.horizon_jitter < 1:
            raise ValueError(f"horizon_jitter must be in [0, 1), got {self.horizon_jitter}")
        if not 0 <= self.noop_motion < 1 or not 0 <= self.max_noop_fraction <= 1:
            raise ValueError(
                "noop_motion must be in [0, 1) and max_noop_fraction in [0, 1], got "
                f"{self.noop_motion} and {self.max_noop_fraction}"
            )
        if self.pairs_per_clip < 1 or (self.size or 8) < 8 or self.shard < 1:
            raise ValueError("pairs_per_clip and shard must be >= 1, size at least 8")
        if self.frames < 2:
            raise ValueError(f"a pair has at least 2 frames, got {self.frames}")

    @property
    def dataset(self) -> str:
        """Name of the data set for the label store."""
        return self.source.name

    def records(self, split: Split) -> list[PairRecord]:
        """All pairs of a split; none at all is a UserError."""
        records, dropped = self.draw(split)
        dropped.log(f"{self.dataset} {split} pairs", len(records))
        if not records:
            raise UserError(
                f"no pairs {self.horizon_s} s apart in the {split} split of {self.source.root}: "
                f"{dropped.summary() or 'it has no clips'}; lower horizon_s, or give another source"
            )
        return records

    def draw(self, split: Split) -> tuple[list[PairRecord], SkipReport]:
        """The pairs of a split, clip by clip, and what was left out and why. UserError for more damage
        than the source's `max_skipped`."""
        source, records, short = self.source.for_labels(), [], SkipReport()
        clips, dropped = source.checked_index(split)
        probed = source.probe([clip.video for clip in clips])
        short.seen = len(clips)
        for clip in clips:
            info = probed[clip.video]
            if isinstance(info, VideoError):
                short.add(damage_of(clip.video), str(info), damage=True)
                continue
            pairs = self._of_clip(clip, info)
            if not pairs:
                short.add("clips shorter than the horizon", clip.clip_id)
            records += pairs
        short.check(f"clips below {source.root}", source.max_skipped)
        dropped.update(short)
        return self._without_noops(records, dropped), dropped

    def parents(self) -> dict[str, Path]:
        """The run folder that made the videos, if one did."""
        return self.source.parents()

    def _of_clip(self, clip: ClipRecord, info: VideoInfo) -> list[PairRecord]:
        """Up to `pairs_per_clip` pairs inside a clip, by time."""
        rng, count = clip_rng(self.seed, clip.moment_id), self.pairs_per_clip
        span = clip.start_s, min(clip.end_s, info.duration_s)
        if self.horizon_jitter:
            low, high = (self.horizon_s * (1 + sign * self.horizon_jitter) for sign in (-1, 1))
            longest = span[1] - span[0] - 1 / info.fps
            found = []
            for part in range(count):
                horizon_s = rng.uniform(low, max(low, min(high, longest)))
                found += timed_pairs(info, *span, horizon_s, count, rng)[part : part + 1]
        else:
            found = timed_pairs(info, *span, self.horizon_s, count, rng)
        return [
            PairRecord(
                video_id=clip.clip_id, video=clip.video, text=clip.text,
                frame=frame, frame_end=frame_end, fps=fps,
            )
            for frame, frame_end, fps in found
        ]  # fmt: skip

    def _without_noops(self, records: list[PairRecord], dropped: SkipReport) -> list[PairRecord]:
        """The pairs without the no-ops beyond the cap; which ones stay is drawn by the seed."""
        if self.max_noop_fraction == 1 or not records:
            return records
        still = motions(records, self.source.workers) < self.noop_motion
        cap = self.max_noop_fraction
        allowed = int(cap / (1 - cap) * (~still).sum() + 1e-9)
        order = np.random.default_rng([self.seed, 1]).permutation(np.flatnonzero(still))
        left_out = set(order[allowed:].tolist())
        for row in sorted(left_out):
            dropped.add("no-op pairs", f"{records[row].video_id} at frame {records[row].frame}")
        return [record for row, record in enumerate(records) if row not in left_out]


def clip_rng(seed: int, moment_id: str) -> np.random.Generator:
    """A random stream of one moment, independent of which others are read and in what order, and the
    same for each camera that saw it: their pairs can be compared."""
    return np.random.default_rng([seed, zlib.crc32(moment_id.encode())])


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


def motions(records: Sequence[PairRecord], workers: int = 1) -> np.ndarray:
    """Mean absolute difference of the two frames of each pair, of 1, at 32 px: float64 (N,). NaN where
    a video is damaged, which decoding reports. Every video is decoded once."""
    rows: dict[Path, list[int]] = defaultdict(list)
    for row, record in enumerate(records):
        rows[record.video].append(row)
    jobs = [
        (video, found, [(records[row].frame, records[row].frame_end) for row in found])
        for video, found in rows.items()
    ]
    motion = np.full(len(records), np.nan)
    for found, values in run_parallel(_motion_of_video, jobs, workers):
        motion[found] = values
    return motion


def _motion_of_video(
    job: tuple[Path, list[int], list[tuple[int, int]]],
) -> tuple[list[int], np.ndarray]:
    video, rows, ends = job
    unique, inverse = np.unique(np.array(ends), return_inverse=True)
    try:
        frames = decode_frames(video, unique, MOTION_PX).astype(np.float32) / 255
    except VideoError:
        return rows, np.full(len(rows), np.nan)
    first, last = inverse.reshape(-1, 2).T
    return rows, np.abs(frames[first] - frames[last]).mean(axis=(1, 2, 3))


def describe(config: PairConfig, split: Split) -> list[str]:
    """What a run would label, in lines, without labeling: counts of pairs and of what is left out, by
    reason; the horizons; how many of at most 512 pairs are no-ops."""
    records, dropped = config.draw(split)
    clips = len({record.video_id for record in records})
    lines = [f"{config.dataset} {split}: {len(records)} pairs of {clips} clips", *dropped.lines()]
    if not records:
        return lines
    seconds = [(record.frame_end - record.frame) / record.fps for record in records]
    lines.append(
        f"  horizon {np.mean(seconds):.2f} s on average, {min(seconds):.2f} to {max(seconds):.2f} s"
    )
    some = [records[i] for i in evenly_spaced_indices(len(records), 512)]
    still = motions(some, config.source.workers) < config.noop_motion
    lines.append(
        f"  {still.sum()} of {len(some)} pairs are no-ops (motion below {config.noop_motion}; "
        f"max_noop_fraction {config.max_noop_fraction:g})"
    )
    return lines


def shards(records: Sequence[PairRecord], size: int) -> list[list[PairRecord]]:
    """Cut records into runs of `size`; the last may be shorter."""
    return [list(records[i : i + size]) for i in range(0, len(records), size)]


def dataset_hash(records: Sequence[PairRecord]) -> str:
    """16 digits that name the pairs, whatever folder they lie in and however they are ordered."""
    return hash_json(sorted([r.video_id, r.frame, r.frame_end, r.text] for r in records))


@contextmanager
def decoded(
    records: Sequence[PairRecord], config: PairConfig, folder: Path, workers: int, keep: bool
) -> Iterator[FrameStore]:
    """Frames of one shard, decoded into `folder` if need be, which the workers share; kept, or removed
    after use. Without the pairs of damaged videos, however many: the limit is for a whole split."""
    assert config.size is not None and config.fit is not None
    yield FrameStore.build(
        records, folder, config.frames, config.size, workers, config.fit, max_skipped=1.0
    )
    if not keep:
        shutil.rmtree(folder)


def decoded_ahead(
    jobs: Sequence[tuple[list[PairRecord], Path]], config: PairConfig, workers: int, keep: bool
) -> Iterator[FrameStore]:
    """Frames of shards, each decoded into its folder while the one before is used; kept, or removed
    after use."""

    def decode(job: tuple[list[PairRecord], Path]) -> FrameStore:
        with decoded(job[0], config, job[1], workers, keep=True) as store:
            return store

    with ThreadPoolExecutor(1) as thread:
        coming = [thread.submit(decode, job) for job in jobs[:1]]
        for number, (_, folder) in enumerate(jobs, 1):
            store = coming.pop().result()
            coming += [thread.submit(decode, job) for job in jobs[number : number + 1]]
            yield store
            if not keep:
                shutil.rmtree(folder)


def evenly_spaced_indices(count: int, wanted: int) -> list[int]:
    """`wanted` of `count` indices, evenly spaced, in order; all if there are no more."""
    wanted = min(wanted, count)
    return sorted({round(i * (count - 1) / max(wanted - 1, 1)) for i in range(wanted)})
