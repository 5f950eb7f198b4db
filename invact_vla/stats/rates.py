"""One variant: k successes of n episodes with an interval, or the reason why there is no rate."""

from collections.abc import Callable
from dataclasses import dataclass

from scipy import stats

Interval = Callable[[int, int, float], tuple[float, float]]  # (k, n, level) -> (low, high)


@dataclass(frozen=True, kw_only=True)
class Rate:
    """k successes of n episodes, with an interval; all fractions in [0, 1].

    Raises ValueError for counts that no run can have, so that no percentage can be printed that
    episodes cannot give.
    """

    k: int
    n: int
    low: float
    high: float

    def __post_init__(self) -> None:
        check_counts(self.k, self.n)
        if not 0 <= self.low <= self.k / self.n <= self.high <= 1:
            raise ValueError(f"{self.k}/{self.n} lies outside [{self.low}, {self.high}]")

    @property
    def value(self) -> float:
        return self.k / self.n

    def __str__(self) -> str:
        return f"{self.k}/{self.n} = {self.value:.1%} [{self.low:.1%}, {self.high:.1%}]"


def wilson(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of k successes in n trials (Wilson 1927), as (low, high) in [0, 1]."""
    check_counts(k, n)
    interval = stats.binomtest(k, n).proportion_ci(confidence_level=level, method="wilson")
    # rounding must not leave k/n outside
    return min(float(interval.low), k / n), max(float(interval.high), k / n)


def check_counts(k: int, n: int) -> None:
    """ValueError unless 0 <= k <= n and n > 0."""
    if not 0 <= k <= n or n == 0:
        raise ValueError(f"need 0 <= k <= n and n > 0, got k={k}, n={n}")
