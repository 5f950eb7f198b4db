"""Early stop: intervals that hold under continuous looking, balanced rounds, and the rule."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.special import betaln

from invact_vla.core.errors import UserError
from invact_vla.stats.rates import (
    difference_sequence,
    log_evidence_difference,
    log_evidence_rate,
    rate_sequence,
    wilson,
)
from libero_eval.results.rows import EPISODES_FILE, EpisodeLog, EpisodeRow
from libero_eval.results.statistics import RateRefused
from libero_eval.rollout.early_stop import EarlyStop, Stopper, balanced_order, rounds_of
from libero_eval.rollout.episode import Job
from tests.libero_eval.rows import make_row

RUNS, EPISODES = 2000, 500
JOBS = [Job(task, init) for task in range(10) for init in range(50)]


def rows_of(jobs: Sequence[Job], rates: Sequence[float], seed: int) -> list[EpisodeRow]:
    """Rows of a policy that solves task t with chance rates[t], in the order of the jobs."""
    rng = np.random.default_rng(seed)
    return [
        make_row(
            task_id=job.task_id,
            init_index=job.init_index,
            outcome="success" if rng.random() < rates[job.task_id] else "failure",
        )
        for job in jobs
    ]


@pytest.mark.parametrize("p", [0.05, 0.5])
def test_rate_sequence_covers_at_all_looks_where_wilson_does_not(p: float) -> None:
    outcomes = np.random.default_rng(0).random((RUNS, EPISODES)) < p
    k, n = outcomes.cumsum(axis=1), np.arange(1, EPISODES + 1)
    log_evidence = betaln(1 + k, 1 + n - k) - k * np.log(p) - (n - k) * np.log1p(-p)
    covered = (log_evidence < np.log(20)).all(axis=1).mean()
    assert covered >= 0.95
    # Wilson at every episode from the tenth on, same runs: score test |k/n - p| against its sd
    inside = np.abs(k / n - p) <= 1.959964 * np.sqrt(p * (1 - p) / n)
    naive = inside[:, 9:].all(axis=1).mean()
    assert 0.5 < naive < 0.7  # 0.64 and 0.59 instead of 0.95
    # the interval is what that test inverts to
    for run, end in [(0, 20), (1, 100), (2, 500)]:
        low, high = rate_sequence(int(k[run, end - 1]), end)
        assert (low < p < high) == (log_evidence[run, end - 1] < np.log(20))


def test_wilson_is_the_score_test_of_the_simulation() -> None:
    for k, n, p in [(5, 50, 0.05), (20, 50, 0.5), (30, 50, 0.45)]:
        low, high = wilson(k, n)
        inside = abs(k / n - p) <= 1.959964 * np.sqrt(p * (1 - p) / n)
        assert (low <= p <= high) == inside


def test_difference_sequence_covers_at_all_looks() -> None:
    lost, won, looks = 0.11, 0.19, 10 * np.arange(1, 51)
    u = np.random.default_rng(1).random((RUNS, EPISODES))
    losses = (u < lost).cumsum(axis=1)[:, looks - 1]
    wins = ((u >= lost) & (u < lost + won)).cumsum(axis=1)[:, looks - 1]
    truth = np.array([won - lost])
    kept = np.ones(RUNS, dtype=bool)
    unique: dict[tuple[int, int, int], bool] = {}
    for column, n in enumerate(looks):
        for run in range(RUNS):
            counts = int(losses[run, column]), int(wins[run, column])
            key = counts[0], int(n) - sum(counts), counts[1]
            if key not in unique:
                unique[key] = log_evidence_difference(*key, truth)[0] < np.log(20)
            kept[run] &= unique[key]
    assert kept.mean() >= 0.95
    low, high = difference_sequence(55, 350, 95)
    assert low < 0.08 < high
    edges = log_evidence_difference(55, 350, 95, np.array([low - 0.002, 0.08, high + 0.002]))
    assert edges[0] > np.log(20) > edges[1] and edges[2] > np.log(20)


def test_balanced_rounds_keep_the_sequence_valid_when_tasks_differ() -> None:
    rates = np.linspace(0.02, 0.98, 10)
    solved = np.random.default_rng(2).random((RUNS, 50, 10)) < rates
    k, n = solved.sum(axis=2).cumsum(axis=1), 10 * np.arange(1, 51)
    covered = [
        all(
            log_evidence_rate(int(a), int(b), np.array([rates.mean()]))[0] < np.log(20)
            for a, b in zip(run, n, strict=True)
        )
        for run in k[:500]
    ]
    assert np.mean(covered) >= 0.95
    # task by task instead, the first looks see only hard tasks: always wrong
    assert not rate_sequence(int(solved[0, :, :2].sum()), 100)[1] > rates.mean()


def test_order_is_a_permutation_in_balanced_rounds() -> None:
    order = balanced_order(JOBS, per_round=5)
    assert sorted(order, key=lambda job: (job.task_id, job.init_index)) == JOBS
    for number, group in enumerate(rounds_of(JOBS, 5)):
        assert order[50 * number : 50 * (number + 1)] == group
        assert {(j.task_id, j.init_index) for j in group} == {
            (task, init) for task in range(10) for init in range(5 * number, 5 * number + 5)
        }
    with pytest.raises(UserError, match="multiple of 7"):
        balanced_order(JOBS, per_round=7)
    with pytest.raises(UserError, match="equally many"):
        balanced_order(JOBS[:-5], per_round=5)


def test_width_rule_stops_at_a_whole_round_whatever_the_order_of_return() -> None:
    rule = EarlyStop(width=0.3)
    rows = rows_of(balanced_order(JOBS, 5), [0.5] * 10, seed=3)
    stopper = Stopper(rule, JOBS)
    stopped = next(n for n, row in enumerate(rows, 1) if stopper.update(row))
    verdict = stopper.verdict()
    assert stopped % 50 == 0 and stopped < 500 and len(verdict["counted"]) == stopped
    assert verdict["stopped"] and verdict["high"] - verdict["low"] <= 0.3
    # handed back in any order, with an error in between, it says the same
    shuffled = list(rows)
    np.random.default_rng(4).shuffle(shuffled)  # pyright: ignore[reportArgumentType]
    other = Stopper(rule, JOBS)
    crash = make_row(task_id=0, init_index=0, outcome="error", reason="GL is gone")
    assert not other.update(crash)
    assert any([other.update(row) for row in shuffled])
    assert other.verdict() == verdict


def test_unfinished_round_is_not_counted() -> None:
    stopper = Stopper(EarlyStop(width=1.9, per_round=1), JOBS)
    rows = rows_of(balanced_order(JOBS, 1), [1.0] * 10, seed=0)
    assert not any([stopper.update(row) for row in rows[1:10]])
    with pytest.raises(RateRefused, match="not one round"):
        stopper.verdict()
    assert stopper.update(rows[0])


def test_decides_against_a_baseline(tmp_path: Path) -> None:
    with EpisodeLog(tmp_path / EPISODES_FILE) as log:
        for row in rows_of(JOBS[:200], [0.1] * 10, seed=5):
            log.append(row)
    rule = EarlyStop(baseline=tmp_path, per_round=5)
    with pytest.raises(UserError, match="lacks 300 of the 500"):
        Stopper(rule, JOBS)
    jobs = JOBS[:200]
    stopper = Stopper(rule, jobs)
    better = rows_of(balanced_order(jobs, 5), [0.8] * 10, seed=6)
    assert any(stopper.update(row) for row in better)
    verdict = stopper.verdict()
    assert len(verdict["counted"]) < 200 and 0 < verdict["low"] < 0.7 < verdict["high"]
    assert "better" in verdict["why"]
    same = Stopper(rule, jobs)
    assert not any([same.update(row) for row in rows_of(jobs, [0.1] * 10, seed=5)])
    assert not same.verdict()["stopped"] and same.verdict()["estimate"] == 0
    with pytest.raises(UserError, match="pack_hash"):
        Stopper(rule, jobs).update(make_row(pack_hash="other"))


def test_rule_needs_a_goal() -> None:
    with pytest.raises(ValueError, match="width, a baseline"):
        EarlyStop()
    with pytest.raises(ValueError, match="per_round"):
        EarlyStop(width=0.1, per_round=0)
