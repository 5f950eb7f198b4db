"""Action statistics and the q01/q99 normalization of OpenVLA.

The JSON form is the one published checkpoints carry (spec: `dataset_statistics.json`, norm_stats).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from invact_vla.core.errors import UserError


@dataclass(frozen=True)
class ActionStats:
    """Statistics of one data set, each float64 (A,). mask: which dimensions are normalized."""

    mean: np.ndarray
    std: np.ndarray
    min: np.ndarray
    max: np.ndarray
    q01: np.ndarray
    q99: np.ndarray
    mask: np.ndarray

    @classmethod
    def of(cls, actions: np.ndarray, mask: Sequence[bool]) -> "ActionStats":
        """Statistics over all transitions. actions: float (N, A)."""
        x = np.asarray(actions, np.float64)
        if x.ndim != 2 or not len(x) or x.shape[1] != len(mask):
            raise ValueError(f"actions: expected (N > 0, {len(mask)}), got {x.shape}")
        return cls(
            mean=x.mean(0),
            std=x.std(0),
            min=x.min(0),
            max=x.max(0),
            q01=np.quantile(x, 0.01, axis=0),
            q99=np.quantile(x, 0.99, axis=0),
            mask=np.asarray(mask, bool),
        )

    def to_json(self) -> dict[str, list[float] | list[bool]]:
        """The published layout: lists by name."""
        return {name: getattr(self, name).tolist() for name in self.__dataclass_fields__}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "ActionStats":
        """Read the published layout. q01 and q99 must be there; mask defaults to all true, and
        absent mean, std, min and max to NaN."""
        missing = {"q01", "q99"} - set(value)
        if missing:
            raise UserError(f"action statistics lack {sorted(missing)}: expected q01 and q99 lists")
        size = len(value["q01"])
        nan = [float("nan")] * size
        fields = {n: np.asarray(value.get(n, nan), np.float64) for n in _FLOATS}
        mask = np.asarray(value.get("mask", [True] * size), bool)
        stats = cls(**fields, mask=mask)
        shapes = {n: getattr(stats, n).shape for n in stats.__dataclass_fields__}
        if set(shapes.values()) != {(size,)}:
            raise UserError(f"action statistics of unequal lengths: {shapes}")
        return stats

    @property
    def constant(self) -> np.ndarray:
        """Normalized dimensions that never change (q01 == q99): they decode to exactly that value."""
        return self.mask & (self.q01 == self.q99)


_FLOATS = ("mean", "std", "min", "max", "q01", "q99")


def normalize(actions: np.ndarray, stats: ActionStats) -> np.ndarray:
    """(..., A) in robot units -> (..., A) in [-1, 1] where masked; constant dimensions become 0.

    BOUNDS_Q99 of OpenVLA: clip(2 (x - q01) / (q99 - q01 + 1e-8) - 1, -1, 1).
    """
    x = np.asarray(actions, np.float64)
    scaled = np.clip(2 * (x - stats.q01) / (stats.q99 - stats.q01 + 1e-8) - 1, -1, 1)
    return np.where(stats.mask, np.where(stats.constant, 0.0, scaled), x)


def unnormalize(actions: np.ndarray, stats: ActionStats) -> np.ndarray:
    """Inverse of `normalize` inside [q01, q99]; constant dimensions give exactly their constant."""
    y = np.asarray(actions, np.float64)
    raw = 0.5 * (y + 1) * (stats.q99 - stats.q01) + stats.q01
    return np.where(stats.mask, np.where(stats.constant, stats.q01, raw), y)
