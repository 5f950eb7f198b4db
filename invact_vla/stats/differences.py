"""Two variants: by how much they differ, how sure that is, and whether they may be compared at all."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from invact_vla.stats.bootstrap import percentile_interval
from invact_vla.stats.rates import (
    check_counts,
    difference_evidence,
    difference_sequence,
    root,
    wilson,
)

BOOTSTRAP_RESAMPLES = 20_000  # of counts: one draw each
MEAN_RESAMPLES = 4_000  # of values: n draws each
FEW_DISCORDANT = 10  # below this a bootstrap resamples too few changes to be wide enough


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Difference second - first of two success rates, in [-1, 1], with interval and p value.

    `only_first` / `only_second` count the discordant pairs and are None for an unpaired comparison.
    method: names of interval and test. differs: settings that differ between the variants.
    """

    n_first: int
    n_second: int
    difference: float
    low: float
    high: float
    p_value: float
    only_first: int | None
    only_second: int | None
    method: str
    differs: tuple[str, ...] = ()

    @property
    def is_paired(self) -> bool:
        return self.only_first is not None

    @property
    def agreement(self) -> float | None:
        """Share of pairs with equal outcome, what `invact libero plan` asks for."""
        if self.only_first is None or self.only_second is None:
            return None
        return 1 - (self.only_first + self.only_second) / self.n_first


@dataclass(frozen=True)
class MeanDifference:
    """Mean of second - first over pairs, with a bootstrap interval, in the measure's own unit."""

    difference: float
    low: float
    high: float


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided McNemar p value from the two counts of discordant pairs (McNemar 1947)."""
    if only_first < 0 or only_second < 0:
        raise ValueError(f"counts must not be negative, got {only_first} and {only_second}")
    discordant = only_first + only_second
    if discordant == 0:
        return 1.0
    return float(stats.binomtest(only_first, discordant, 0.5).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """P values corrected for their number (Holm 1979), in the same order."""
    adjusted, worst = [0.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        worst = max(worst, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = worst
    return adjusted


def paired_bootstrap(
    first: Sequence[bool], second: Sequence[bool], rng: np.random.Generator, level: float = 0.95,
    resamples: int = BOOTSTRAP_RESAMPLES,
) -> tuple[float, float]:  # fmt: skip
    """Percentile interval of mean(second) - mean(first) when whole pairs are resampled.

    A pair changes the difference by -1, 0 or +1, so resampling n pairs is one multinomial draw.
    """
    n = len(first)
    if n != len(second) or n == 0:
        raise ValueError(f"paired outcomes need equal, positive length: {n}, {len(second)}")
    change = np.asarray(second, dtype=int) - np.asarray(first, dtype=int)
    counts = np.array([(change == value).sum() for value in (-1, 0, 1)])
    draws = rng.multinomial(n, counts / n, size=resamples)
    return percentile_interval((draws[:, 2] - draws[:, 0]) / n, level)


def tango(only_first: int, only_second: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Score interval of the paired difference (Tango 1998), honest with few discordant pairs.

    only_first, only_second: discordant pairs of n. The candidates d whose score statistic
    (b - c - n d) / sqrt(n (2 q + d (1 - d))) stays within the normal quantile, with q the
    constrained estimate of the rate of pairs that only the first variant won.
    """
    check_counts(only_first + only_second, n)
    c, b = only_first, only_second
    limit = float(stats.norm.ppf((1 + level) / 2))

    def score(d: float) -> float:
        half = -b - c + (2 * n - b + c) * d
        q = (np.sqrt(half**2 + 8 * n * c * d * (1 - d)) - half) / (4 * n)
        variance = n * (2 * q + d * (1 - d))
        return float((b - c - n * d) / np.sqrt(max(variance, 1e-15)))

    center, edge = (b - c) / n, 1 - 1e-9
    low = -1.0 if score(-edge) < limit else root(lambda d: score(d) - limit, -edge, center)
    high = 1.0 if score(edge) > -limit else root(lambda d: score(d) + limit, center, edge)
    return low, high


def compare_paired(
    first: Sequence[bool], second: Sequence[bool], rng: np.random.Generator, level: float = 0.95
) -> Comparison:
    """Compare two variants on the same episodes: outcomes (n,) bool in the same order.

    The interval is a bootstrap over pairs, or Tango's score interval where fewer than
    FEW_DISCORDANT pairs differ (a bootstrap of none would have no width).
    """
    only_first, only_second = discordant(first, second)
    if only_first + only_second < FEW_DISCORDANT:
        interval = tango(only_first, only_second, len(first), level)
        name = f"Tango's score interval (under {FEW_DISCORDANT} discordant pairs)"
    else:
        interval, name = paired_bootstrap(first, second, rng, level), "bootstrap over pairs"
    p_value = mcnemar(only_first, only_second)
    return _of_pairs(first, second, interval, p_value, f"paired: {name}, McNemar's exact test")


def compare_sequential(
    first: Sequence[bool], second: Sequence[bool], level: float = 0.95
) -> Comparison:
    """As `compare_paired`, valid also if a run ended because of what was seen until then."""
    only_first, only_second = discordant(first, second)
    counts = only_first, len(first) - only_first - only_second, only_second
    p_value = min(1.0, 1 / difference_evidence(*counts))
    method = "paired, stopped early: confidence sequence by betting, p = 1 / e-value"
    return _of_pairs(first, second, difference_sequence(*counts, level), p_value, method)


def _of_pairs(
    first: Sequence[bool], second: Sequence[bool], interval: tuple[float, float], p_value: float,
    method: str,
) -> Comparison:  # fmt: skip
    only_first, only_second = discordant(first, second)
    return Comparison(
        n_first=len(first), n_second=len(second), difference=(only_second - only_first) / len(first),
        low=interval[0], high=interval[1], p_value=p_value, only_first=only_first,
        only_second=only_second, method=method,
    )  # fmt: skip


def compare_unpaired(k1: int, n1: int, k2: int, n2: int, level: float = 0.95) -> Comparison:
    """Compare counts of different episodes: Newcombe's interval (1998) and Fisher's exact test."""
    check_counts(k1, n1)
    check_counts(k2, n2)
    (low1, high1), (low2, high2) = wilson(k1, n1, level), wilson(k2, n2, level)
    p1, p2 = k1 / n1, k2 / n2
    return Comparison(
        n_first=n1, n_second=n2, difference=p2 - p1,
        low=p2 - p1 - float(np.hypot(p2 - low2, high1 - p1)),
        high=p2 - p1 + float(np.hypot(high2 - p2, p1 - low1)),
        p_value=float(np.asarray(stats.fisher_exact([[k1, n1 - k1], [k2, n2 - k2]]))[1]),
        only_first=None, only_second=None,
        method="unpaired (other episodes): Newcombe's interval, Fisher's exact test",
    )  # fmt: skip


def discordant(first: Sequence[bool], second: Sequence[bool]) -> tuple[int, int]:
    """How many pairs only the first variant won, and how many only the second."""
    pairs = list(zip(first, second, strict=True))
    return sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
