"""A policy for testing the harness: tiny, reads all that a policy may read, equal everywhere.

Integers only, from SHAKE-256 instead of a random generator: the same observations give the same
actions on every machine and version, and one gray level more in one pixel of 256 x 256 changes them.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from invact_vla.core.schema import ActionChunk, Observation
from libero_eval.policies.config import PolicyConfig
from libero_eval.policy_source import EachEpisode, PolicySource

GRID = 8  # blocks per side whose mean colors are read
GRAY = 1 << 16  # a gray level
ONE = 1 << 22  # an action of 1; float32 holds every multiple of its inverse in [-1, 1] exactly
STATE_UNIT = 1e-5  # m or rad
SEEN_PERCENT, DRIFT_PERCENT = 40, 60  # of an action that observations and time decide
HOLD = 16  # steps in one direction: the arm moves visibly, and turns before it leaves the table


@PolicyConfig.register_subclass("selftest")
@dataclass(frozen=True, kw_only=True)
class SelftestConfig(PolicyConfig):
    """A deterministic policy that reads pixels, state and words, and solves nothing."""

    weights: int = 0  # which of its weights
    chunk: int = 8  # actions per call

    def __post_init__(self) -> None:
        if self.chunk < 1:
            raise ValueError(f"chunk must be at least 1, got {self.chunk}")

    def load(self) -> PolicySource:
        return EachEpisode(lambda: SelftestPolicy(self.weights, self.chunk))


class SelftestPolicy:
    """A fixed projection of what is seen, plus a drift that changes direction with time."""

    needs: tuple[str, ...] = ("agentview",)

    def __init__(self, weights: int = 0, chunk: int = 8) -> None:
        self.chunk = chunk
        self._weights = weights
        self._pixels = _draw(f"pixels {weights}", 6 * GRID * GRID * 3).reshape(6, -1)
        self._state = _draw(f"state {weights}", 6 * 8).reshape(6, 8)
        self._seed, self._step = 0, 0

    def reset(self, seed: int) -> None:
        self._seed, self._step = seed, 0

    def act(self, observation: Observation) -> ActionChunk:
        seen = self._pixels @ block_means(observation.agentview, GRID) // 1280
        places = np.rint(observation.state.astype(np.float64) / STATE_UNIT).astype(np.int64)
        seen += self._state @ places // 8
        steps = range(self._step, self._step + self.chunk)
        self._step += self.chunk
        stretches = (f"{self._weights} {self._seed} {step // HOLD}" for step in steps)
        drift = [_draw(f"{stretch} {observation.instruction}", 7) for stretch in stretches]
        return ActionChunk(np.stack([_action(seen, values) for values in drift]))


def block_means(image: np.ndarray, grid: int) -> np.ndarray:
    """Mean color of each of grid x grid blocks less that of the image: int64 (grid * grid * 3,).

    image: uint8 (H, W, 3); ValueError unless H, W >= grid. Unit: 1 / GRAY of a gray level.
    """
    height, width = image.shape[:2]
    if min(height, width) < grid:
        raise ValueError(f"expected an image of at least {grid} x {grid}, got {height} x {width}")
    rows, columns = np.arange(grid) * height // grid, np.arange(grid) * width // grid
    sums = np.add.reduceat(np.add.reduceat(image.astype(np.int64), rows, 0), columns, 1)
    pixels = np.outer(np.diff([*rows, height]), np.diff([*columns, width]))[..., None]
    means = sums * GRAY // pixels
    return (means - means.sum((0, 1)) // grid**2).reshape(-1)


def _action(seen: np.ndarray, drift: np.ndarray) -> np.ndarray:
    """Integers -> (7,) float32: six deltas, and a gripper that is open or closed."""
    mixed = (
        np.clip(seen, -ONE, ONE) * SEEN_PERCENT + drift[:6] * (ONE // 128) * DRIFT_PERCENT
    ) // 100
    gripper = ONE if drift[6] > 64 else -ONE
    return (np.append(np.clip(mixed, -ONE, ONE), gripper) / ONE).astype(np.float32)


def _draw(name: str, count: int) -> np.ndarray:
    """int64 (count,) in [-128, 127], a function of the name."""
    digest = hashlib.shake_256(f"selftest {name}".encode()).digest(count)
    return np.frombuffer(digest, np.int8).astype(np.int64)
