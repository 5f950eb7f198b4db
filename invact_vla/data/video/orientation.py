"""How the agentview's pictures lie, told by what moves in them.

LIBERO's agentview looks at the robot from the front. In frames as policies see them (OpenVLA turns the
simulator's by 180 degrees, which also mirrors them) what moves goes up when the hand goes up (z), and
to the left when it goes to the robot's left (y). Measured on scripted demonstrations: correlation of
the middle of what changes with z -0.8 in rows, with y -1.0 in columns.
"""

from collections import Counter
from collections.abc import Iterable

import numpy as np

from invact_vla.data.conventions import ROTATIONS

LEAST_CORRELATION = 0.6
LEAST_CHANGE = 30  # of a pixel's three channels together: less is noise
LEAST_FRAMES = 10


def needed_rotation(frames: np.ndarray, ee_pos: np.ndarray) -> str | None:
    """What would make the frames lie as LIBERO's policies see them, one of ROTATIONS; None if what
    moves does not tell. frames: uint8 (T, H, W, 3). ee_pos: (T, 3) in m, in the robot's base frame."""
    weights, rows, columns = _middle_of_change(frames)
    if not np.any(weights):
        return None
    busy = weights > 0.3 * np.median(weights)
    if busy.sum() < LEAST_FRAMES:
        return None
    up = _correlation(rows[busy], ee_pos[:-1, 2][busy])
    left = _correlation(columns[busy], ee_pos[:-1, 1][busy])
    if min(abs(up), abs(left)) < LEAST_CORRELATION:
        return None
    steps = (-1 if up > 0 else 1, -1 if left > 0 else 1)
    return next(name for name, value in ROTATIONS.items() if value == steps)


def agreed_rotation(found: Iterable[str | None]) -> str | None:
    """What all demonstrations that tell agree on (nine in ten of them); None if they do not."""
    counts = Counter(name for name in found if name is not None)
    if not counts:
        return None
    name, count = counts.most_common(1)[0]
    return name if count >= 0.9 * counts.total() else None


def _middle_of_change(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How much changes from each frame to the next, and the row and column of its middle: (T - 1,)."""
    weights, rows, columns = np.zeros((3, max(len(frames) - 1, 0)))
    height, width = frames.shape[1:3]
    for i in range(len(weights)):
        change = np.abs(frames[i + 1].astype(np.int16) - frames[i]).sum(-1).astype(np.float64)
        change[change < LEAST_CHANGE] = 0
        weights[i] = change.sum()
        if weights[i]:
            rows[i] = change.sum(1) @ np.arange(height) / weights[i]
            columns[i] = change.sum(0) @ np.arange(width) / weights[i]
    return weights, rows, columns


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if a.std() < 1e-9 or b.std() < 1e-9:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])
