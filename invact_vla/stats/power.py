"""How likely a number of episodes shows a difference, and how many it takes.

`power_fisher` and `power_mcnemar` are exact for the tests that `invact libero compare` runs: they
sum the probabilities of all outcomes that the test would call different. `power` and `required_n`
are the textbook's normal approximation of the unpaired case.
"""

from collections.abc import Callable

import numpy as np
from scipy import stats
from scipy.special import gammaln

MAX_EPISODES = 20_000


def power(p1: float, p2: float, n: int, alpha: float = 0.05) -> float:
    """Chance that n unpaired episodes per variant show p1 != p2 (two-sided z test, both tails)."""
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
    """Episodes per variant to tell p1 from p2 without pairing (normal approximation, two-sided).

    Pairing needs fewer, by an amount that depends on how often both variants agree: see
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
    _check_discordant(only_first, only_second)
    discordant, gap = only_first + only_second, abs(only_second - only_first)
    z_alpha, z_power = stats.norm.ppf(1 - alpha / 2), stats.norm.ppf(power)
    spread = z_alpha * np.sqrt(discordant) + z_power * np.sqrt(discordant - gap**2)
    return int(np.ceil((spread / gap) ** 2))


def power_fisher(p1: float, p2: float, n: int, alpha: float = 0.05) -> float:
    """Exact power of Fisher's exact test with n unpaired episodes in each variant.

    For each total of successes the test's rejection region is found from the hypergeometric
    distribution, and its probability under the two binomials is added up.
    """
    _check_rates(p1, p2)
    k = np.arange(n + 1)
    chance1, chance2 = stats.binom.pmf(k, n, p1), stats.binom.pmf(k, n, p2)
    log_choose = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    expected, spread = n * (p1 + p2), np.sqrt(n * (p1 * (1 - p1) + p2 * (1 - p2)))
    first = max(0, int(expected - 7 * spread) - 1)
    last = min(2 * n, int(expected + 7 * spread) + 1)
    total_power = 0.0
    for total in range(first, last + 1):
        k1 = np.arange(max(0, total - n), min(n, total) + 1)
        weights = log_choose[k1] + log_choose[total - k1]
        null = np.exp(weights - weights.max())
        null /= null.sum()
        order = np.argsort(null, kind="stable")
        p_sorted = np.cumsum(null[order])
        # ties belong together: scipy's test adds all tables that are as likely up to 1e-7
        places = np.searchsorted(null[order], null * (1 + 1e-7), side="right") - 1
        rejected = k1[p_sorted[places] <= alpha]
        total_power += float((chance1[rejected] * chance2[total - rejected]).sum())
    return total_power


def power_mcnemar(only_first: float, only_second: float, n: int, alpha: float = 0.05) -> float:
    """Exact power of McNemar's exact test on n pairs, given both rates of discordant pairs."""
    _check_discordant(only_first, only_second)
    discordant = only_first + only_second
    counts = np.arange(n + 1)
    chances = stats.binom.pmf(counts, n, discordant)
    counts, chances = counts[chances > 1e-12], chances[chances > 1e-12]
    # the largest c with 2 P(Binomial(d, 1/2) <= c) <= alpha; -1 where there is none
    limits = stats.binom.ppf(alpha / 2, counts, 0.5).astype(int)
    limits -= 2 * stats.binom.cdf(limits, counts, 0.5) > alpha
    share = only_second / discordant
    below = stats.binom.cdf(limits, counts, share)
    above = stats.binom.sf(counts - limits - 1, counts, share)
    return float((chances * (below + above)).sum())


def smallest_n(power_of: Callable[[int], float], target: float, guess: int) -> int | None:
    """The smallest n from which on the power stays at or above the target, or None up to 20,000.

    Exact power is a saw: it may dip below the target just after reaching it. From a doubled guess
    the search goes down by bisection, then up again past every dip within 5 % of n.
    """
    high = max(2, guess)
    while power_of(high) < target:
        high *= 2
        if high > MAX_EPISODES:
            return None
    low = 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power_of(middle) >= target else (middle, high)
    window = range(high, high + max(3, high // 20))
    dips = [n for n in window if power_of(n) < target]
    return dips[-1] + 1 if dips else high


def detectable_gap(power_of: Callable[[float], float], most: float, target: float) -> float | None:
    """The smallest difference in (0, most] that is seen with the target's power, to 0.1 points.

    power_of: power for a true difference. None if even the largest is not.
    """
    gaps = np.arange(1, int(1000 * most + 1e-6) + 1) / 1000
    if len(gaps) == 0 or power_of(float(gaps[-1])) < target:
        return None
    low, high = -1, len(gaps) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power_of(float(gaps[middle])) >= target else (middle, high)
    return float(gaps[high])


def detectable_paired(
    n: int, discordant: float, power: float = 0.8, alpha: float = 0.05
) -> float | None:
    """Smallest difference that n pairs show, given the share of pairs with unequal outcomes."""

    def power_of(gap: float) -> float:
        return power_mcnemar(max(0.0, discordant - gap) / 2, (discordant + gap) / 2, n, alpha)

    return detectable_gap(power_of, discordant, power)


def _check_rates(p1: float, p2: float) -> None:
    if not (0 <= p1 <= 1 and 0 <= p2 <= 1) or p1 == p2:
        raise ValueError(f"need two different rates in [0, 1], got {p1} and {p2}")


def _check_discordant(only_first: float, only_second: float) -> None:
    discordant, gap = only_first + only_second, abs(only_second - only_first)
    if not 0 < gap <= discordant + 1e-12 <= 1 + 2e-12:
        raise ValueError(
            f"rates of discordant pairs must differ and sum to at most 1, got {only_first} and "
            f"{only_second}"
        )
