"""One variant: k successes of n episodes with an interval, or the reason why there is no rate.

Confidence sequences: intervals that hold at every moment at once, so a run may stop early.

An interval such as Wilson's covers the truth with 95 % at one moment fixed beforehand. Whoever
looks after every episode and stops when it suits gets less, because some look will be a lucky one.
A confidence sequence covers at all moments together with 95 %: with an e-process M_n(m) that starts
at 1 and is a martingale if m is the truth, Ville's inequality gives P(some M_n(m) >= 1/alpha) <=
alpha, so {m: M_n(m) < 1/alpha} may be looked at after every episode.

Rate: mixture of likelihood ratios over a uniform prior (Robbins 1970; Howard, Ramdas, McAuliffe,
Sekhon 2021, "Time-uniform, nonparametric, nonasymptotic confidence sequences").
Paired difference: mixture of bets on the mean of values in [0, 1] (Waudby-Smith and Ramdas 2024,
"Estimating means of bounded random variables by betting", JRSS B).

Tasks differ in difficulty, so episodes are not drawn from one distribution. Both processes are
mixtures of products of factors 1 + lambda (x - m); over a round in which every task is run equally
often the expected product is at most (1 + lambda (mean - m))^n (inequality of the means), that is 1
at the truth m = mean over tasks. So they hold at the ends of such rounds, and there alone:
see `libero_eval.rollout.early_stop`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.optimize import root_scalar
from scipy.special import betaln

Interval = Callable[[int, int, float], tuple[float, float]]  # (k, n, level) -> (low, high)
BETS = np.linspace(-1, 1, 82)[1:-1]  # shares of the largest bet, symmetric, without 0 and +-1
GRID = 2001  # candidate differences in [-1, 1]
MAX_LOG = 700.0  # of an e-value that is still a float


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


def root(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a function that changes its sign once between low and high is zero."""
    return float(root_scalar(function, bracket=(low, high), method="brentq").root)


def log_evidence_rate(k: int, n: int, p: np.ndarray) -> np.ndarray:
    """Log of the mixture likelihood ratio against each candidate rate p, float (P,) in (0, 1)."""
    log_mixture = betaln(1 + k, 1 + n - k)
    return log_mixture - k * np.log(p) - (n - k) * np.log1p(-p)


def rate_sequence(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The confidence sequence's interval of a rate after n episodes, k of them successes."""
    check_counts(k, n)
    limit = -np.log1p(-level)

    def excess(p: float) -> float:
        return float(log_evidence_rate(k, n, np.array([p]))[0]) - limit

    edge = 1e-12
    low = 0.0 if k == 0 or excess(edge) <= 0 else root(excess, edge, min(k / n, 1 - edge))
    high = 1.0 if k == n or excess(1 - edge) <= 0 else root(excess, max(k / n, edge), 1 - edge)
    return low, high


def log_evidence_difference(losses: int, ties: int, wins: int, m: np.ndarray) -> np.ndarray:
    """Log wealth of the mixture of bets against each candidate difference m, float (P,) in (-1, 1).

    losses, ties, wins: pairs that the second variant lost, drew and won against the first.
    """
    mean = (np.asarray(m)[:, None] + 1) / 2  # of values 0, 1/2, 1
    bets = np.where(BETS > 0, BETS / mean, BETS / (1 - mean))
    log_wealth = (
        losses * np.log1p(-bets * mean)
        + ties * np.log1p(bets * (0.5 - mean))
        + wins * np.log1p(bets * (1 - mean))
    )
    top = log_wealth.max(axis=1, keepdims=True)
    return top[:, 0] + np.log(np.exp(log_wealth - top).mean(axis=1))


def difference_sequence(
    losses: int, ties: int, wins: int, level: float = 0.95
) -> tuple[float, float]:
    """The confidence sequence's interval of (rate of second) - (rate of first), in [-1, 1].

    The hull of the candidates that are not refuted, one step of the grid wider on each side.
    """
    if min(losses, ties, wins) < 0:
        raise ValueError(f"counts must not be negative, got {losses}, {ties}, {wins}")
    grid = np.linspace(-1, 1, GRID)[1:-1]
    kept = grid[log_evidence_difference(losses, ties, wins, grid) < -np.log1p(-level)]
    step = 2 / (GRID - 1)
    if len(kept) == 0:  # the truth is within a step of -1 or 1
        center = (wins - losses) / (losses + ties + wins)
        kept = np.array([center])
    return max(-1.0, float(kept[0]) - step), min(1.0, float(kept[-1]) + step)


def difference_evidence(losses: int, ties: int, wins: int) -> float:
    """E-value against "no difference"; min(1, 1 / it) is a p value that holds at every moment."""
    log_value = log_evidence_difference(losses, ties, wins, np.array([0.0]))[0]
    return float(np.exp(min(log_value, MAX_LOG)))
