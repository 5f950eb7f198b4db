"""The cluster bootstrap: percentile intervals of means and ratios over values that come in clusters.

Clips of one take share people, light and objects, so single clips are no independent draws: whole
clusters are drawn with replacement. N values, K clusters, B draws, S columns.
"""

from collections.abc import Hashable, Sequence

import numpy as np

Seed = int | Sequence[int]


def as_ids(values: Sequence[Hashable]) -> np.ndarray:
    """Equal values, equal numbers from 0 in order of appearance: int64 (N,)."""
    table: dict[Hashable, int] = {}
    return np.array([table.setdefault(value, len(table)) for value in values], dtype=np.int64)


def resample(
    above: np.ndarray, below: np.ndarray, clusters: Sequence[Hashable], *, draws: int = 1000,
    seed: Seed = 0,
) -> np.ndarray:  # fmt: skip
    """Bootstrap draws of sum(above) / sum(below), clusters being drawn by the seed alone.

    above: (N,) or (S, N); below: (N,), all ones for a mean -> (B,) or (B, S); NaN in a draw whose
    `below` sums to 0.
    """
    ids = as_ids(clusters)
    count = int(ids.max()) + 1
    picks = np.random.default_rng(seed).integers(count, size=(draws, count))
    totals = [
        np.bincount(ids, weights=row)[picks].sum(axis=1) for row in (*np.atleast_2d(above), below)
    ]
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = np.stack(totals[:-1], axis=1) / totals[-1][:, None]
    ratios[totals[-1] <= 0] = np.nan
    return ratios[:, 0] if above.ndim == 1 else ratios


def percentile_interval(draws: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The interval that holds the middle share `level` of the draws (B,), those of NaN left out."""
    tail = round((1 - level) / 2, 12)
    low, high = np.percentile(draws[~np.isnan(draws)], [100 * tail, 100 * (1 - tail)])
    return float(low), float(high)
