"""Success rates that say how sure they are: intervals, paired tests, how many episodes one needs.

Episodes of two arms share (task, init state), so the paired forms are the default: McNemar's exact
test on the discordant pairs and a bootstrap over pairs. Success counts alone fall back to unpaired
forms. No rate exists while an episode ended as an error: a crash says nothing about the policy.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from invact_vla.errors import UserError
from libero_eval.results import EpisodeRow

BOOTSTRAP_RESAMPLES = 20_000  # of counts: one draw each
MEAN_RESAMPLES = 4_000  # of values: n draws each


class RateRefused(UserError):
    """No success rate can be given for these rows; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Rate:
    """k successes of n episodes, with a Wilson interval; all fractions in [0, 1]."""

    k: int
    n: int
    low: float
    high: float

    @property
    def value(self) -> float:
        return self.k / self.n

    def __str__(self) -> str:
        return f"{self.k}/{self.n} = {self.value:.1%} [{self.low:.1%}, {self.high:.1%}]"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Difference second - first of two success rates, in [-1, 1], with interval and p value.

    `only_first` / `only_second` count the discordant pairs and are None for an unpaired comparison.
    """

    n_first: int
    n_second: int
    difference: float
    low: float
    high: float
    p_value: float
    only_first: int | None
    only_second: int | None

    @property
    def is_paired(self) -> bool:
        return self.only_first is not None


@dataclass(frozen=True)
class MeanDifference:
    """Mean of second - first over pairs, with a bootstrap interval, in the measure's own unit."""

    difference: float
    low: float
    high: float


def wilson(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of k successes in n trials (Wilson 1927), as (low, high) in [0, 1]."""
    _check_counts(k, n)
    interval = stats.binomtest(k, n).proportion_ci(confidence_level=level, method="wilson")
    return float(interval.low), float(interval.high)


def rate(rows: Iterable[EpisodeRow], level: float = 0.95) -> Rate:
    """The success rate of rows; raises RateRefused if there are none or any of them is an error."""
    rows = list(rows)
    errors = [row for row in rows if row.outcome == "error"]
    if errors:
        first = errors[0]
        raise RateRefused(
            f"{len(errors)} of {len(rows)} episodes ended as errors, which are neither success nor "
            f"failure (first: {first.suite} task {first.task_id} init {first.init_index}: "
            f"{first.reason.strip().splitlines()[-1] if first.reason.strip() else 'no reason'}); "
            "fix the cause and run again, only those episodes are repeated"
        )
    if not rows:
        raise RateRefused("no episodes were run")
    k = sum(row.outcome == "success" for row in rows)
    low, high = wilson(k, len(rows), level)
    return Rate(k=k, n=len(rows), low=low, high=high)


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided McNemar p value from the two counts of discordant pairs (McNemar 1947)."""
    if only_first < 0 or only_second < 0:
        raise ValueError(f"counts must not be negative, got {only_first} and {only_second}")
    discordant = only_first + only_second
    if discordant == 0:
        return 1.0
    return float(stats.binomtest(only_first, discordant, 0.5).pvalue)


def paired_bootstrap(
    first: Sequence[bool],
    second: Sequence[bool],
    rng: np.random.Generator,
    level: float = 0.95,
    resamples: int = BOOTSTRAP_RESAMPLES,
) -> tuple[float, float]:
    """Percentile interval of mean(second) - mean(first) when whole pairs are resampled.

    A pair changes the difference by -1, 0 or +1, so resampling n pairs is one multinomial draw.
    """
    if len(first) != len(second) or len(first) == 0:
        raise ValueError(
            f"paired outcomes need equal, positive length: {len(first)}, {len(second)}"
        )
    n = len(first)
    change = np.asarray(second, dtype=int) - np.asarray(first, dtype=int)
    counts = np.array([(change == value).sum() for value in (-1, 0, 1)])
    draws = rng.multinomial(n, counts / n, size=resamples)
    tail = (1 - level) / 2
    low, high = np.quantile((draws[:, 2] - draws[:, 0]) / n, [tail, 1 - tail])
    return float(low), float(high)


def compare_paired(
    first: Sequence[bool], second: Sequence[bool], rng: np.random.Generator, level: float = 0.95
) -> Comparison:
    """Compare two arms on the same episodes: outcomes (n,) bool in the same order."""
    low, high = paired_bootstrap(first, second, rng, level)
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    return Comparison(
        n_first=len(first),
        n_second=len(second),
        difference=(only_second - only_first) / len(first),
        low=low,
        high=high,
        p_value=mcnemar(only_first, only_second),
        only_first=only_first,
        only_second=only_second,
    )


def compare_unpaired(k1: int, n1: int, k2: int, n2: int, level: float = 0.95) -> Comparison:
    """Compare counts of different episodes: Newcombe's interval (1998) and Fisher's exact test."""
    _check_counts(k1, n1)
    _check_counts(k2, n2)
    (low1, high1), (low2, high2) = wilson(k1, n1, level), wilson(k2, n2, level)
    p1, p2 = k1 / n1, k2 / n2
    return Comparison(
        n_first=n1,
        n_second=n2,
        difference=p2 - p1,
        low=p2 - p1 - float(np.hypot(p2 - low2, high1 - p1)),
        high=p2 - p1 + float(np.hypot(high2 - p2, p1 - low1)),
        p_value=float(np.asarray(stats.fisher_exact([[k1, n1 - k1], [k2, n2 - k2]]))[1]),
        only_first=None,
        only_second=None,
    )


def compare(
    first: Sequence[EpisodeRow], second: Sequence[EpisodeRow], seed: int = 0, level: float = 0.95
) -> Comparison:
    """Compare two arms: paired if both ran exactly the same (suite, task, init), else unpaired.

    Refused (RateRefused) with errors among the rows, and (UserError) when the rows were made under
    different protocols, asset packs or environments: `settings_differ` names what differs.
    """
    rate_first, rate_second = rate(first, level), rate(second, level)
    differing = settings_differ(first, second)
    if differing:
        raise UserError(
            f"arms {first[0].arm!r} and {second[0].arm!r} cannot be compared: "
            + "; ".join(differing)
            + "; run both under the same settings"
        )
    ours = {row.episode: row.outcome == "success" for row in first}
    theirs = {row.episode: row.outcome == "success" for row in second}
    if len(ours) != len(first) or len(theirs) != len(second):
        raise UserError("an arm holds an episode twice: pass the rows of one arm and one seed")
    if ours.keys() != theirs.keys():
        return compare_unpaired(rate_first.k, rate_first.n, rate_second.k, rate_second.n, level)
    episodes = sorted(ours)
    rng = np.random.default_rng([seed, len(episodes)])
    return compare_paired([ours[e] for e in episodes], [theirs[e] for e in episodes], rng, level)


def compare_means(
    first: Sequence[EpisodeRow],
    second: Sequence[EpisodeRow],
    value: Callable[[EpisodeRow], float],
    seed: int = 0,
    level: float = 0.95,
) -> MeanDifference:
    """Paired difference of a progress measure, e.g. the share of goals met; bootstrap over pairs.

    Both arms must have run the same episodes without errors (UserError otherwise).
    """
    ours = {row.episode: value(row) for row in first}
    theirs = {row.episode: value(row) for row in second}
    if ours.keys() != theirs.keys() or not ours:
        raise UserError("a paired comparison needs the same episodes, at least one, in both arms")
    for rows in (first, second):
        rate(rows)  # refuses errors
    change = np.array([theirs[episode] - ours[episode] for episode in sorted(ours)])
    rng = np.random.default_rng([seed, len(change)])
    means = change[rng.integers(len(change), size=(MEAN_RESAMPLES, len(change)))].mean(axis=1)
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return MeanDifference(float(change.mean()), float(low), float(high))


def settings_differ(first: Iterable[EpisodeRow], second: Iterable[EpisodeRow]) -> list[str]:
    """What makes two sets of rows incomparable, one phrase per setting; empty if nothing does."""
    first, second = list(first), list(second)
    phrases = []
    for name in ("protocol", "protocol_hash", "pack", "pack_hash", "manifest_hash", "seed"):
        ours, theirs = ({str(getattr(row, name)) for row in rows} for rows in (first, second))
        if ours != theirs or len(ours) > 1:
            phrases.append(f"{name} {sorted(ours)} against {sorted(theirs)}")
    return phrases


def power(p1: float, p2: float, n: int, alpha: float = 0.05) -> float:
    """Chance that n unpaired episodes per arm show p1 != p2 (two-sided z test, both tails)."""
    _check_rates(p1, p2)
    mean = (p1 + p2) / 2
    null_sd = np.sqrt(2 * mean * (1 - mean) / n)
    true_sd = np.sqrt((p1 * (1 - p1) + p2 * (1 - p2)) / n)
    if true_sd == 0:
        return 1.0
    limit = stats.norm.ppf(1 - alpha / 2) * null_sd
    gap = abs(p2 - p1)
    return float(stats.norm.sf((limit - gap) / true_sd) + stats.norm.cdf((-limit - gap) / true_sd))


def required_n(p1: float, p2: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """Episodes per arm to tell p1 from p2 without pairing (normal approximation, two-sided).

    Pairing needs fewer, by an amount that depends on how often both arms agree: see
    `required_pairs`. Training-seed noise comes on top of this evaluation noise.
    """
    _check_rates(p1, p2)
    mean = (p1 + p2) / 2
    z_alpha, z_power = stats.norm.ppf(1 - alpha / 2), stats.norm.ppf(power)
    spread = z_alpha * np.sqrt(2 * mean * (1 - mean)) + z_power * np.sqrt(
        p1 * (1 - p1) + p2 * (1 - p2)
    )
    return int(np.ceil((spread / (p2 - p1)) ** 2))


def required_pairs(
    only_first: float, only_second: float, power: float = 0.8, alpha: float = 0.05
) -> int:
    """Paired episodes to see a difference, given both rates of discordant pairs (Connor 1987)."""
    discordant, gap = only_first + only_second, abs(only_second - only_first)
    if not 0 < gap <= discordant <= 1:
        raise ValueError(
            f"rates of discordant pairs must differ and sum to at most 1, got {only_first} and "
            f"{only_second}"
        )
    z_alpha, z_power = stats.norm.ppf(1 - alpha / 2), stats.norm.ppf(power)
    spread = z_alpha * np.sqrt(discordant) + z_power * np.sqrt(discordant - gap**2)
    return int(np.ceil((spread / gap) ** 2))


def _check_counts(k: int, n: int) -> None:
    if not 0 <= k <= n or n == 0:
        raise ValueError(f"need 0 <= k <= n and n > 0, got k={k}, n={n}")


def _check_rates(p1: float, p2: float) -> None:
    if not (0 <= p1 <= 1 and 0 <= p2 <= 1) or p1 == p2:
        raise ValueError(f"need two different rates in [0, 1], got {p1} and {p2}")
