"""The checked types that cross a border between stages; past the border, code trusts them.

Axis letters: H W pixels, N items, K code positions, A action dimensions.
"""

import functools
import logging
from dataclasses import dataclass
from typing import Protocol

import numpy as np

logger = logging.getLogger(__name__)
ROUNDING = 1e-3  # an action beyond its range by no more than this was meant to be at the end of it


def _expect(name: str, words: str, array: np.ndarray, holds: bool) -> None:
    if not holds:
        raise ValueError(f"{name}: expected {words}, got {array.dtype} {array.shape}")


@dataclass(frozen=True)
class LatentLabels:
    """Codes of N pairs. codes: int (N, K), each in [0, codebook_size)."""

    codes: np.ndarray
    codebook_size: int

    def __post_init__(self) -> None:
        c, size = self.codes, self.codebook_size
        is_whole = np.issubdtype(c.dtype, np.integer)
        _expect("codes", "integers (N, K)", c, c.ndim == 2 and is_whole)
        if c.size and (c.min() < 0 or c.max() >= size):
            raise ValueError(f"codes: expected [0, {size}), got [{c.min()}, {c.max()}]")


@dataclass(frozen=True)
class Observation:
    """What a policy may see at one control step.

    agentview, wrist: uint8 (H, W, 3) RGB, upright (LIBERO's frames already rotated by 180 degrees);
    wrist may be None. state: float32 (8,) = end-effector position (3, m), orientation as axis-angle
    (3, rad), gripper joint positions (2, m). instruction: the task in words.
    """

    agentview: np.ndarray
    wrist: np.ndarray | None
    state: np.ndarray
    instruction: str

    def __post_init__(self) -> None:
        images = {"agentview": self.agentview, "wrist": self.wrist}
        for name, f in images.items():
            if f is not None:
                is_rgb = f.dtype == np.uint8 and f.ndim == 3 and f.shape[-1] == 3
                _expect(name, "uint8 (H, W, 3)", f, is_rgb)
        state = self.state
        _expect("state", "float32 (8,)", state, (state.dtype, state.shape) == (np.float32, (8,)))


@dataclass(frozen=True)
class ActionSpec:
    """What the numbers of an action mean."""

    names: tuple[str, ...] = ("dx", "dy", "dz", "drx", "dry", "drz", "gripper")
    frame: str = "OSC_POSE deltas in the robot base frame; 1 = 5 cm or 0.5 rad"
    gripper: str = "-1 open, +1 close"
    low: float = -1.0
    high: float = 1.0


LIBERO_ACTIONS = ActionSpec()


@dataclass(frozen=True)
class ActionChunk:
    """Actions to execute open loop. values: float32 (N, 7) in [-1, 1], in LIBERO's env convention.

    What is beyond by at most ROUNDING is clipped, and said once.
    """

    values: np.ndarray
    spec: ActionSpec = LIBERO_ACTIONS

    def __post_init__(self) -> None:
        v, size = self.values, len(self.spec.names)
        fits = v.dtype == np.float32 and v.ndim == 2 and v.shape[1] == size and len(v) > 0
        _expect("action", f"float32 (N, {size})", v, fits)
        if not np.all(np.isfinite(v)):
            raise ValueError("action: expected finite values, got NaN or infinity")
        beyond = max(self.spec.low - float(v.min()), float(v.max()) - self.spec.high)
        if 0 < beyond <= ROUNDING:
            _say_rounded(f"[{self.spec.low:g}, {self.spec.high:g}]")
            object.__setattr__(self, "values", np.clip(v, self.spec.low, self.spec.high))
        elif beyond > 0:
            raise ValueError(
                f"action: expected [{self.spec.low}, {self.spec.high}], got [{v.min()}, {v.max()}]"
            )


@functools.cache
def _say_rounded(range_: str) -> None:
    """Once per process."""
    logger.warning("actions beyond %s by at most %g clipped: taken for rounding", range_, ROUNDING)


class Policy(Protocol):
    """Anything that acts. needs: the cameras it reads; chunk: actions it returns per call."""

    needs: tuple[str, ...]
    chunk: int

    def reset(self, seed: int) -> None:
        """Forget the last episode; seed drives any randomness of the next one."""
        ...

    def act(self, observation: Observation) -> ActionChunk:
        """The next actions for this observation."""
        ...
