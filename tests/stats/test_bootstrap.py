"""The cluster bootstrap against a loop over its draws, and what clusters do to an interval."""

import numpy as np
import pytest

from invact_vla.stats.bootstrap import as_ids, percentile_interval, resample


def test_draws_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    takes = rng.integers(5, size=40).tolist()
    above, below = rng.random((2, 40)), rng.random(40)
    found = resample(above, below, takes, draws=30, seed=[7, 1])
    ids = as_ids(takes)
    picks = np.random.default_rng([7, 1]).integers(5, size=(30, 5))
    for draw, picked in zip(found, picks, strict=True):
        rows = np.concatenate([np.flatnonzero(ids == take) for take in picked])
        np.testing.assert_allclose(draw, above[:, rows].sum(axis=1) / below[rows].sum())
    np.testing.assert_array_equal(
        resample(above[0], below, takes, draws=30, seed=[7, 1]), found[:, 0]
    )


def test_an_interval_holds_the_mean_and_grows_with_clusters():
    rng = np.random.default_rng(4)
    takes = np.repeat(np.arange(20), 10)
    scores = np.clip(rng.normal(0.5, 0.1, 20)[takes] + rng.normal(0, 0.05, 200), 0, 1)
    low, high = percentile_interval(resample(scores, np.ones(200), takes.tolist()))
    assert low < scores.mean() < high
    alone = percentile_interval(resample(scores, np.ones(200), range(200)))
    assert high - low > alone[1] - alone[0]


def test_draws_of_nothing_are_left_out():
    draws = resample(np.array([1.0, 0.0]), np.array([1.0, 0.0]), ["a", "b"], draws=200)
    assert np.isnan(draws).any() and percentile_interval(draws) == (1.0, 1.0)


def test_the_level_of_an_interval():
    draws = np.linspace(0, 1, 1001)
    assert percentile_interval(draws, 0.9) == pytest.approx((0.05, 0.95))
    assert percentile_interval(draws) == pytest.approx((0.025, 0.975))
