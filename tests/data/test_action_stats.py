"""Action statistics: published formulas, round trips, constant dimensions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from invact_vla.core.errors import UserError
from invact_vla.data.action_stats import ActionStats, normalize, unnormalize

MASK = [True] * 6 + [False]


def sample(n=500, seed=0):
    rng = np.random.default_rng(seed)
    actions = rng.normal(size=(n, 7))
    actions[:, 3:6] = 0.25
    actions[:, 6] = rng.integers(0, 2, n)
    return actions


def test_known_values():
    stats = ActionStats.from_json({"q01": [-1.0, 0.0], "q99": [1.0, 4.0], "mask": [True, False]})
    assert normalize(np.array([0.5, 3.0]), stats) == pytest.approx([0.5, 3.0], abs=1e-8)
    assert unnormalize(np.array([0.5, 3.0]), stats) == pytest.approx([0.5, 3.0])
    assert normalize(np.array([9.0, 9.0]), stats).tolist() == [1.0, 9.0]


def test_constant_dimensions_decode_to_exactly_their_constant():
    """Biases of a head must not tilt a hand that never turned in the data."""
    stats = ActionStats.of(sample(), MASK)
    assert stats.constant.tolist() == [False, False, False, True, True, True, False]
    out = unnormalize(np.full(7, 0.37), stats)
    assert out[3:6].tolist() == [0.25] * 3
    assert normalize(sample()[0], stats)[3:6].tolist() == [0.0] * 3


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 200), st.integers(0, 1000))
def test_round_trip_inside_the_bounds(n, seed):
    actions = sample(n, seed)
    stats = ActionStats.of(actions, MASK)
    inside = np.clip(
        actions, np.where(stats.mask, stats.q01, -9), np.where(stats.mask, stats.q99, 9)
    )
    assert unnormalize(normalize(inside, stats), stats) == pytest.approx(inside, abs=1e-6)


def test_json_round_trip_and_missing_statistics():
    stats = ActionStats.of(sample(), MASK)
    again = ActionStats.from_json(stats.to_json())
    assert all(np.array_equal(getattr(stats, n), getattr(again, n)) for n in stats.to_json())
    with pytest.raises(UserError, match="q99"):
        ActionStats.from_json({"q01": [0.0]})
    with pytest.raises(UserError, match="unequal lengths"):
        ActionStats.from_json({"q01": [0.0], "q99": [1.0, 2.0]})
