"""One arm: k successes of n episodes with an interval, or the reason why there is no rate."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from scipy import stats

from invact_vla.errors import UserError
from libero_eval.results import EpisodeRow

Interval = Callable[[int, int, float], tuple[float, float]]  # (k, n, level) -> (low, high)


class RateRefused(UserError):
    """No success rate can be given for these rows; the message says why."""


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


def rate(rows: Iterable[EpisodeRow], level: float = 0.95, interval: Interval = wilson) -> Rate:
    """The success rate of rows; raises RateRefused if there are none or any of them is an error.

    interval: `wilson` for a run whose length was fixed, `sequences.rate_sequence` for one that
    stopped early.
    """
    rows = list(rows)
    errors = [row for row in rows if row.outcome == "error"]
    if errors:
        raise RateRefused(why_no_rate(errors, len(rows)))
    if not rows:
        raise RateRefused("no episodes were run")
    k = sum(row.outcome == "success" for row in rows)
    low, high = interval(k, len(rows), level)
    return Rate(k=k, n=len(rows), low=low, high=high)


def why_no_rate(errors: list[EpisodeRow], n: int) -> str:
    """The sentence in place of a rate: how many errors, the first of them, what to do."""
    first = errors[0]
    lines = first.reason.strip().splitlines()
    return (
        f"{len(errors)} of {n} episodes ended as errors, which are neither success nor "
        f"failure (first: {first.suite} task {first.task_id} init {first.init_index}: "
        f"{lines[0] if lines else 'no reason'}); "
        "fix the cause and run again, only those episodes are repeated"
    )


def check_counts(k: int, n: int) -> None:
    """ValueError unless 0 <= k <= n and n > 0."""
    if not 0 <= k <= n or n == 0:
        raise ValueError(f"need 0 <= k <= n and n > 0, got k={k}, n={n}")
