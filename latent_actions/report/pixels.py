"""Frames of the pairs of a store, each video decoded once; broken ones are named, never fatal."""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from invact_vla.core.errors import UserError
from invact_vla.core.limits import short
from invact_vla.data.video.display import Fit
from invact_vla.data.video.frames import open_video, video_key
from invact_vla.data.video.video_info import pair_frames
from latent_actions.report.stores import Labeled

TINY_PX = 8  # side of the first frame that a probe looks at


@dataclass(frozen=True)
class Decoded:
    """rows: int64 (n,) of the pairs that could be decoded; frames: uint8 (n, T, H, W, 3); seconds:
    float64 (n,) from the first to the last; broken: messages of videos that could not."""

    rows: np.ndarray
    frames: np.ndarray
    seconds: np.ndarray
    broken: tuple[str, ...]


def decode_rows(
    labeled: Labeled, rows: np.ndarray, count: int, size: int, fit: Fit = "crop"
) -> Decoded:
    """`count` frames of pairs, int64 (n,), from the first to the last (1: the first alone), side
    `size`."""
    of_video: dict[str, list[int]] = defaultdict(list)
    for row in rows.tolist():
        of_video[labeled.store.path[row]].append(row)
    found: dict[int, tuple[np.ndarray, float]] = {}
    broken = []
    for path, members in tqdm(of_video.items(), "decode", unit="video", mininterval=5, leave=False):
        try:
            found |= _decode(labeled, path, members, count, size, fit)
        except (UserError, OSError, ValueError, IndexError) as error:
            broken.append(short(error))
    kept = [row for row in rows.tolist() if row in found]
    empty = np.zeros((0, count, size, size, 3), np.uint8)
    frames = np.stack([found[row][0] for row in kept]) if kept else empty
    return Decoded(
        np.array(kept, np.int64), frames, np.array([found[r][1] for r in kept]), tuple(broken)
    )


def first_frames(labeled: Labeled) -> tuple[np.ndarray, Decoded]:
    """The first frame of every pair, 8 x 8 pixels in color: (float64 (n, 192) in [0, 1], what was
    decoded)."""
    decoded = decode_rows(labeled, np.arange(len(labeled.store)), 1, TINY_PX)
    return decoded.frames.reshape(len(decoded.rows), -1) / 255, decoded


def _decode(
    labeled: Labeled, path: str, rows: list[int], count: int, size: int, fit: Fit
) -> dict[int, tuple[np.ndarray, float]]:
    """row -> its frames and its seconds. UserError for a video that is missing, broken, or another one
    than was labeled."""
    store = labeled.store
    assert labeled.videos is not None
    video = labeled.videos / path
    if video_key(video) != store.video_key[rows[0]]:
        raise UserError(f"{video} is not the video that was labeled")
    with open_video(video) as opened:
        info = opened.info
        spans = {row: (int(store.frame[row]), int(store.frame_end[row])) for row in rows}
        wanted = {
            row: np.array([start]) if count == 1 else pair_frames(start, end, count, info)
            for row, (start, end) in spans.items()
        }
        unique = np.unique(np.concatenate(list(wanted.values())))
        pictures = opened.frames(unique, size, fit)
        times = {row: float(np.diff(info.times_of(spans[row]))[0]) for row in rows}
    return {row: (pictures[np.searchsorted(unique, w)], times[row]) for row, w in wanted.items()}
