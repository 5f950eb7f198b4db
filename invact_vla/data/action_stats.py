"""Action statistics, and normalization to [-1, 1] by their bounds: q01 and q99, or min and max.

The JSON form is the one that published checkpoints carry (`dataset_statistics.json`, norm_stats). What
this project adds stands under its "invact" key, which other readers pass over.

Axis letters: N transitions, A numbers of an action.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from invact_vla.core.errors import UserError
from invact_vla.core.limits import one_line, short

Bounds = Literal["quantile", "minmax"]
REST_ZONE = 0.02  # distance from rest, of the normalized range [-1, 1], that means rest
REST_MOSTLY = 0.5  # fraction of steps at rest above which a dimension has that zone
_FLOATS = ("mean", "std", "min", "max", "q01", "q99")


@dataclass(frozen=True)
class ActionStats:
    """Statistics of one data set, each float64 (A,). mask: which dimensions are normalized; bounds: by
    what; rest_fraction: of the steps, those in which a dimension is exactly 0, or None where answers
    near 0 are left as they are."""

    mean: np.ndarray
    std: np.ndarray
    min: np.ndarray
    max: np.ndarray
    q01: np.ndarray
    q99: np.ndarray
    mask: np.ndarray
    bounds: Bounds = "quantile"
    rest_fraction: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        actions: np.ndarray,
        mask: Sequence[bool],
        bounds: Bounds = "quantile",
        rest: bool = False,
    ) -> "ActionStats":
        """Statistics over all transitions. actions: float (N, A)."""
        x = np.asarray(actions, np.float64)
        if x.ndim != 2 or not len(x) or x.shape[1] != len(mask):
            raise ValueError(f"actions: expected (N > 0, {len(mask)}), got {x.shape}")
        q01, q99 = np.quantile(x, [0.01, 0.99], axis=0)
        known = x.mean(0), x.std(0), x.min(0), x.max(0), q01, q99, np.asarray(mask, bool)
        return cls(*known, bounds, (x == 0).mean(0) if rest else None)

    def to_json(self) -> dict[str, Any]:
        """The published layout: lists by name; "invact" only where something is not as published."""
        value: dict[str, Any] = {name: getattr(self, name).tolist() for name in (*_FLOATS, "mask")}
        own: dict[str, Any] = {} if self.bounds == "quantile" else {"bounds": self.bounds}
        if self.rest_fraction is not None:
            own["rest_fraction"] = self.rest_fraction.tolist()
        return {**value, "invact": own} if own else value

    @classmethod
    def from_json(cls, value: Any) -> "ActionStats":
        """Read the published layout. q01 and q99 must be there, or min and max where these are the
        bounds; mask defaults to all true, and other absent numbers to NaN. UserError for all else."""
        if not isinstance(value, dict):
            raise UserError(f"statistics are {short(repr(value))}, expected lists by name, as q01")
        own = value.get("invact", {})
        bounds = own.get("bounds", "quantile") if isinstance(own, dict) else own
        if bounds not in get_args(Bounds):
            known = get_args(Bounds)
            raise UserError(f"action statistics with bounds {bounds!r}: expected one of {known}")
        needed = {"q01", "q99"} | ({"min", "max"} if bounds == "minmax" else set())
        if missing := needed - set(value):
            names = " and ".join(sorted(needed))
            raise UserError(f"action statistics lack {sorted(missing)}: expected {names} lists")
        with one_line("action statistics that are no lists of numbers ({error}): fetch them again"):
            size = len(value["q01"])
            lists = {"mask": [True] * size, **value, **own}
            absent = [float("nan")] * size
            names = [*_FLOATS, "mask", *({"rest_fraction"} & own.keys())]
            arrays = {n: np.asarray(lists.get(n, absent), np.float64) for n in names}
        shapes = {name: array.shape for name, array in arrays.items()}
        if set(shapes.values()) != {(size,)}:
            raise UserError(f"action statistics of unequal lengths: {shapes}")
        mask = arrays.pop("mask")
        stats = cls(**arrays, mask=mask == 1, bounds=bounds)
        ordered = np.isfinite(stats.low) & np.isfinite(stats.high) & (stats.low <= stats.high)
        if not np.isin(mask, (0, 1)).all():
            raise UserError(f"action statistics with mask {mask.tolist()}: expected true and false")
        if not ordered[stats.mask].all():
            i = int(np.argmin(ordered | ~stats.mask))
            raise UserError(
                f"action statistics whose number {i} goes from {stats.low[i]:g} to {stats.high[i]:g}: "
                "expected finite bounds, the lower first"
            )
        return stats

    @property
    def low(self) -> np.ndarray:
        """What is normalized to -1."""
        return self.min if self.bounds == "minmax" else self.q01

    @property
    def high(self) -> np.ndarray:
        """What is normalized to 1."""
        return self.max if self.bounds == "minmax" else self.q99

    @property
    def constant(self) -> np.ndarray:
        """Normalized dimensions that never change (low == high): they decode to exactly that value."""
        return self.mask & (self.low == self.high)

    @property
    def resting(self) -> np.ndarray:
        """Normalized dimensions that are exactly 0 most of the time: answers near 0 decode to it."""
        if self.rest_fraction is None:
            return np.zeros_like(self.mask)
        return self.mask & (self.rest_fraction > REST_MOSTLY)

    def for_published_readers(self) -> "ActionStats":
        """The same with its bounds as q01 and q99, which published readers take for the bounds."""
        return replace(self, q01=self.low, q99=self.high)


def normalize(actions: np.ndarray, stats: ActionStats) -> np.ndarray:
    """(..., A) in robot units -> (..., A) in [-1, 1] where masked; constant dimensions become 0.

    OpenVLA's BOUNDS_Q99 and BOUNDS: clip(2 (x - low) / (high - low + 1e-8) - 1, -1, 1)."""
    x = np.asarray(actions, np.float64)
    scaled = np.clip(2 * (x - stats.low) / (stats.high - stats.low + 1e-8) - 1, -1, 1)
    return np.where(stats.mask, np.where(stats.constant, 0.0, scaled), x)


def unnormalize(actions: np.ndarray, stats: ActionStats) -> np.ndarray:
    """Inverse of `normalize` inside the bounds; constant dimensions give exactly their constant, and
    resting ones exactly 0 where the answer is within REST_ZONE of it."""
    y = np.asarray(actions, np.float64)
    raw = 0.5 * (y + 1) * (stats.high - stats.low) + stats.low
    near = np.abs(y - normalize(np.zeros(y.shape[-1]), stats)) <= REST_ZONE
    raw = np.where(stats.resting & near, 0.0, raw)
    return np.where(stats.mask, np.where(stats.constant, stats.low, raw), y)
