"""Statistics against published and hand-computed values."""

import numpy as np
import pytest

from invact_vla.errors import UserError
from libero_eval import stats
from libero_eval.results import EpisodeRow
from tests.libero_eval.rows import make_row, make_rows


def test_wilson_agrees_with_published_values() -> None:
    # Newcombe 1998, table I: 81/263, 15/148, 0/20, 1/29
    for k, n, low, high in [
        (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:  # fmt: skip
        assert stats.wilson(k, n) == pytest.approx((low, high), abs=6e-5)


def test_mcnemar_is_the_exact_binomial_test() -> None:
    assert stats.mcnemar(0, 0) == 1.0
    assert stats.mcnemar(0, 5) == pytest.approx(2 / 2**5)
    assert stats.mcnemar(3, 9) == pytest.approx(2 * (1 + 12 + 66 + 220) / 2**12)
    assert stats.mcnemar(9, 3) == stats.mcnemar(3, 9)


def test_paired_bootstrap_agrees_with_resampling_pairs() -> None:
    rng = np.random.default_rng(0)
    first = rng.random(60) < 0.4
    second = (rng.random(60) < 0.3) | first
    low, high = stats.paired_bootstrap(first, second, np.random.default_rng(1))
    picks = rng.integers(60, size=(20_000, 60))
    change = second.astype(int) - first.astype(int)
    slow = np.quantile(change[picks].mean(axis=1), [0.025, 0.975])
    assert (low, high) == pytest.approx(tuple(slow), abs=0.017)
    assert stats.paired_bootstrap([True] * 5, [True] * 5, rng) == (0.0, 0.0)


def test_unpaired_comparison_agrees_with_newcombe() -> None:
    # Newcombe 1998b, table II, 56/70 against 48/80: 0.2000 [0.0524, 0.3339] by method 10
    result = stats.compare_unpaired(48, 80, 56, 70)
    assert result.difference == pytest.approx(0.2)
    assert (result.low, result.high) == pytest.approx((0.0524, 0.3339), abs=6e-5)
    assert not result.is_paired and 0 < result.p_value < 0.02


def test_power_and_required_n_for_the_page_s_claim() -> None:
    # 44 against 52 %: unpaired two-sided power at 50 .. 1000 episodes an arm
    for n, expected in [(50, 0.12), (100, 0.20), (200, 0.36), (500, 0.72), (1000, 0.95)]:
        assert stats.power(0.44, 0.52, n) == pytest.approx(expected, abs=0.01)
    n = stats.required_n(0.44, 0.52)
    assert stats.power(0.44, 0.52, n) == pytest.approx(0.8, abs=0.002)
    assert stats.required_n(0.52, 0.44) == n
    assert stats.required_pairs(0.06, 0.14) < n


def test_no_rate_while_an_error_exists() -> None:
    rows = [*make_rows([True, False]), make_row(init_index=2, outcome="error", reason="GL is gone")]
    with pytest.raises(stats.RateRefused, match=r"1 of 3 episodes ended as errors.*GL is gone"):
        stats.rate(rows)
    with pytest.raises(stats.RateRefused, match="no episodes"):
        stats.rate([])
    assert str(stats.rate(rows[:2])) == "1/2 = 50.0% [9.5%, 90.5%]"


def test_compare_pairs_by_task_and_init_state_whatever_the_order() -> None:
    first = make_rows([True, False, False, False], arm="a")
    second = make_rows([True, True, True, False], arm="b")
    result = stats.compare(first, list(reversed(second)))
    assert (result.only_first, result.only_second) == (0, 2)
    assert result.difference == 0.5 and result.p_value == 0.5
    assert result == stats.compare(first, second)


def test_compare_falls_back_when_episodes_differ() -> None:
    assert not stats.compare(make_rows([True] * 3, arm="a"), make_rows([True] * 4)).is_paired


def test_compare_refuses_other_settings() -> None:
    second = [make_row(protocol_hash="other", pack="official")]
    with pytest.raises(UserError, match=r"protocol_hash.*other.*pack"):
        stats.compare([make_row(arm="a")], second)


def test_paired_mean_difference_of_progress() -> None:
    first: list[EpisodeRow] = make_rows([False] * 4, goals_best=0)
    second = make_rows([False] * 4, goals_best=1)
    result = stats.compare_means(first, second, lambda row: row.goals_best / row.goals_total)
    assert (result.difference, result.low, result.high) == (0.5, 0.5, 0.5)
    with pytest.raises(UserError, match="same episodes"):
        stats.compare_means(first, second[:2], lambda row: row.steps)
