"""Statistics against published and hand-computed values."""

import numpy as np
import pytest

from invact_vla.core.errors import UserError
from invact_vla.stats import differences, power, rates
from libero_eval.results import statistics
from libero_eval.results.rows import EpisodeRow
from tests.libero_eval.rows import make_row, make_rows


def test_wilson_agrees_with_published_values() -> None:
    # Newcombe 1998, table I: 81/263, 15/148, 0/20, 1/29
    for k, n, low, high in [
        (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:  # fmt: skip
        assert rates.wilson(k, n) == pytest.approx((low, high), abs=6e-5)


def test_mcnemar_is_the_exact_binomial_test() -> None:
    assert differences.mcnemar(0, 0) == 1.0
    assert differences.mcnemar(0, 5) == pytest.approx(2 / 2**5)
    assert differences.mcnemar(3, 9) == pytest.approx(2 * (1 + 12 + 66 + 220) / 2**12)
    assert differences.mcnemar(9, 3) == differences.mcnemar(3, 9)


def test_paired_bootstrap_agrees_with_resampling_pairs() -> None:
    rng = np.random.default_rng(0)
    first = rng.random(60) < 0.4
    second = (rng.random(60) < 0.3) | first
    low, high = differences.paired_bootstrap(first, second, np.random.default_rng(1))
    picks = rng.integers(60, size=(20_000, 60))
    change = second.astype(int) - first.astype(int)
    slow = np.quantile(change[picks].mean(axis=1), [0.025, 0.975])
    assert (low, high) == pytest.approx(tuple(slow), abs=0.017)
    assert differences.paired_bootstrap([True] * 5, [True] * 5, rng) == (0.0, 0.0)


def test_unpaired_comparison_agrees_with_newcombe() -> None:
    # Newcombe 1998b, table II, 56/70 against 48/80: 0.2000 [0.0524, 0.3339] by method 10
    result = differences.compare_unpaired(48, 80, 56, 70)
    assert result.difference == pytest.approx(0.2)
    assert (result.low, result.high) == pytest.approx((0.0524, 0.3339), abs=6e-5)
    assert not result.is_paired and 0 < result.p_value < 0.02


def test_power_and_required_n_for_the_page_s_claim() -> None:
    # 44 against 52 %: unpaired two-sided power at 50 .. 1000 episodes a policy
    for n, expected in [(50, 0.12), (100, 0.20), (200, 0.36), (500, 0.72), (1000, 0.95)]:
        assert power.power(0.44, 0.52, n) == pytest.approx(expected, abs=0.01)
    n = power.required_n(0.44, 0.52)
    assert power.power(0.44, 0.52, n) == pytest.approx(0.8, abs=0.002)
    assert power.required_n(0.52, 0.44) == n
    assert power.required_pairs(0.06, 0.14) < n


def test_no_rate_while_an_error_exists() -> None:
    rows = [*make_rows([True, False]), make_row(init_index=2, outcome="error", reason="GL is gone")]
    with pytest.raises(
        statistics.RateRefused, match=r"1 of 3 episodes ended as errors.*GL is gone"
    ):
        statistics.rate(rows)
    with pytest.raises(statistics.RateRefused, match="no episodes"):
        statistics.rate([])
    assert str(statistics.rate(rows[:2])) == "1/2 = 50.0% [9.5%, 90.5%]"


def test_compare_pairs_by_task_and_init_state_whatever_the_order() -> None:
    first = make_rows([True, False, False, False], policy_name="a")
    second = make_rows([True, True, True, False], policy_name="b")
    result = statistics.compare(first, list(reversed(second)))
    assert (result.only_first, result.only_second) == (0, 2)
    assert result.difference == 0.5 and result.p_value == 0.5
    assert result == statistics.compare(first, second)


def test_compare_falls_back_when_episodes_differ() -> None:
    assert not statistics.compare(
        make_rows([True] * 3, policy_name="a"), make_rows([True] * 4)
    ).is_paired


def test_compare_refuses_other_settings() -> None:
    second = [make_row(protocol_hash="other", pack="official")]
    with pytest.raises(UserError, match=r"protocol_hash.*other.*pack"):
        statistics.compare([make_row(policy_name="a")], second)


def test_paired_mean_difference_of_progress() -> None:
    first: list[EpisodeRow] = make_rows([False] * 4, goals_best=0)
    second = make_rows([False] * 4, goals_best=1)
    result = statistics.compare_means(first, second, lambda row: row.goals_best / row.goals_total)
    assert (result.difference, result.low, result.high) == (0.5, 0.5, 0.5)
    with pytest.raises(UserError, match="same episodes"):
        statistics.compare_means(first, second[:2], lambda row: row.steps)


def test_impossible_rates_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="k=21, n=20"):
        rates.Rate(k=21, n=20, low=0.9, high=1.0)
    with pytest.raises(ValueError, match="lies outside"):
        rates.Rate(k=10, n=20, low=0.9, high=1.0)
    for k, n in [(0, 3), (3, 3), (1, 7), (499, 500)]:
        rates.Rate(k=k, n=n, low=rates.wilson(k, n)[0], high=rates.wilson(k, n)[1])


def test_holm_corrects_step_by_step() -> None:
    # Holm 1979: 4 p1, 3 p2, ..., never below one before
    assert differences.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert differences.holm([0.9, 0.6]) == [1.0, 1.0]
    assert differences.holm([]) == []


@pytest.mark.parametrize(("lost", "won", "n"), [(0, 0, 19), (1, 5, 30), (4, 2, 50), (0, 9, 9)])
def test_tango_is_the_score_interval_of_the_trinomial(lost: int, won: int, n: int) -> None:
    """The rate q of losses that maximises the likelihood given d, found on a grid instead."""
    low, high = differences.tango(lost, won, n)
    for edge in (low, high):
        if abs(edge) == 1:
            continue
        q = np.linspace(max(0.0, -edge), (1 - edge) / 2, 400_001)[1:-1]
        log_likelihood = (
            lost * np.log(q) + won * np.log(q + edge) + (n - lost - won) * np.log1p(-2 * q - edge)
        )
        best = q[np.nanargmax(log_likelihood)]
        score = (won - lost - n * edge) / np.sqrt(n * (2 * best + edge * (1 - edge)))
        assert abs(score) == pytest.approx(1.959964, abs=2e-3)
    assert low <= (won - lost) / n <= high
    mirrored = differences.tango(won, lost, n)
    assert mirrored == pytest.approx((-high, -low), abs=1e-6)


def test_few_discordant_pairs_do_not_give_a_narrow_interval() -> None:
    rng = np.random.default_rng(0)
    none = differences.compare_paired([False] * 19, [False] * 19, rng)
    assert none.low < -0.15 and none.high > 0.15 and "Tango" in none.method
    many = differences.compare_paired([True] * 20 + [False] * 80, [False] * 20 + [True] * 80, rng)
    assert "bootstrap" in many.method and many.agreement == 0


def test_exact_power_agrees_with_simulated_tests() -> None:
    rng = np.random.default_rng(0)
    n, p1, p2 = 40, 0.3, 0.6
    k1, k2 = rng.binomial(n, p1, 1500), rng.binomial(n, p2, 1500)
    found = [
        differences.compare_unpaired(a, n, b, n).p_value <= 0.05
        for a, b in zip(k1, k2, strict=True)
    ]
    assert np.mean(found) == pytest.approx(power.power_fisher(p1, p2, n), abs=0.035)
    lost, won = 0.1, 0.25
    counts = rng.multinomial(120, [lost, won, 1 - lost - won], 4000)
    found = [differences.mcnemar(int(b), int(c)) <= 0.05 for b, c, _ in counts]
    assert np.mean(found) == pytest.approx(power.power_mcnemar(lost, won, 120), abs=0.022)


def test_exact_power_of_fisher_is_the_sum_over_all_tables() -> None:
    from scipy import stats as scipy_stats

    n, p1, p2 = 12, 0.2, 0.7
    expected = sum(
        scipy_stats.binom.pmf(a, n, p1) * scipy_stats.binom.pmf(b, n, p2)
        for a in range(n + 1)
        for b in range(n + 1)
        if differences.compare_unpaired(a, n, b, n).p_value <= 0.05
    )
    assert power.power_fisher(p1, p2, n) == pytest.approx(expected, abs=1e-9)


def test_smallest_n_reaches_the_power_and_less_does_not() -> None:
    def power_of(n: int) -> float:
        return power.power_mcnemar(0.11, 0.19, n)

    n = power.smallest_n(power_of, 0.8, power.required_pairs(0.11, 0.19))
    assert n is not None and all(power_of(m) >= 0.8 for m in range(n, n + 10))
    assert power_of(n - 1) < 0.8 and abs(n - power.required_pairs(0.11, 0.19)) < 30
    assert power.smallest_n(lambda n: 0.1, 0.8, 100) is None


def test_detectable_difference_is_the_smallest_one_with_that_power() -> None:
    gap = power.detectable_paired(500, 0.3)
    assert gap is not None
    assert power.power_mcnemar((0.3 - gap) / 2, (0.3 + gap) / 2, 500) >= 0.8
    smaller = gap - 0.001
    assert power.power_mcnemar((0.3 - smaller) / 2, (0.3 + smaller) / 2, 500) < 0.8
    assert power.detectable_paired(19, 0.05) is None


def test_compare_across_settings_says_what_differs() -> None:
    second = make_rows([True, True], protocol_hash="other")
    result = statistics.compare(make_rows([True, False], policy_name="a"), second, across=True)
    assert result.is_paired and result.differs == ("protocol_hash ['p0'] against ['other']",)
