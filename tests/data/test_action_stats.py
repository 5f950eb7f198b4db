"""Action statistics: published formulas, round trips, constant dimensions."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from invact_vla.core.errors import UserError
from invact_vla.data.action_stats import REST_ZONE, ActionStats, normalize, unnormalize

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


def turning(n=1000):
    """Demonstrations whose hand turns in a few steps, by 0.3; else it rests."""
    actions = np.random.default_rng(0).uniform(-0.5, 0.5, (n, 7))
    actions[:, 3:6] = 0.0
    actions[: n // 200, 5] = 0.3
    actions[:, 6] = np.arange(n) % 2
    return actions


def test_minmax_bounds_keep_a_rare_turn_that_quantiles_cut():
    actions = turning()
    quantile, minmax = (ActionStats.of(actions, MASK, bounds) for bounds in ("quantile", "minmax"))
    turn = actions[0]
    assert unnormalize(normalize(turn, quantile), quantile)[5] == 0.0
    assert unnormalize(normalize(turn, minmax), minmax) == pytest.approx(turn, abs=1e-6)
    assert minmax.low.tolist() == actions.min(0).tolist()
    assert np.abs(normalize(actions, minmax)[:, :6]).max() <= 1


def test_answers_near_rest_decode_to_it_where_the_demonstrations_mostly_rest():
    actions = turning()
    stats = ActionStats.of(actions, MASK, "minmax", rest=True)
    assert stats.rest_fraction is not None and stats.rest_fraction[5] == 0.995
    assert stats.resting.tolist() == [False] * 3 + [True] * 3 + [False]
    rest = normalize(np.zeros(7), stats)
    near, far = rest + 0.9 * REST_ZONE, rest + 1.1 * REST_ZONE
    assert unnormalize(near, stats)[3:6].tolist() == [0.0] * 3
    assert unnormalize(near, stats)[0] != 0.0 and unnormalize(far, stats)[5] != 0.0
    assert unnormalize(normalize(actions, stats), stats) == pytest.approx(actions, abs=1e-6)
    plain = ActionStats.of(actions, MASK, "minmax")
    assert unnormalize(near, plain)[5] != 0.0


@pytest.mark.parametrize(
    ("bounds", "rest"), [("minmax", True), ("minmax", False), ("quantile", True)]
)
def test_what_is_not_published_makes_the_round_trip_under_a_key_of_its_own(bounds, rest):
    stats = ActionStats.of(turning(), MASK, bounds, rest)
    value = json.loads(json.dumps(stats.to_json()))
    own = value.pop("invact")
    assert value == ActionStats.of(turning(), MASK).to_json(), (
        "published readers see what they know"
    )
    again = ActionStats.from_json({**value, "invact": own})
    answers = np.random.default_rng(1).uniform(-1, 1, (50, 7)) * [1, 1, 1, 0.02, 0.02, 1, 1]
    assert np.array_equal(unnormalize(answers, again), unnormalize(answers, stats))
    assert again.bounds == bounds and (again.rest_fraction is not None) == rest


def test_published_readers_decode_with_the_same_bounds_once_exported():
    stats = ActionStats.of(turning(), MASK, "minmax")
    value = stats.for_published_readers().to_json()
    low, high = np.array(value["q01"]), np.array(value["q99"])
    answer = np.array([0.5, -0.5, 0.1, 0.0, 0.0, 0.9, 1.0])
    published = np.where(value["mask"], 0.5 * (answer + 1) * (high - low) + low, answer)
    assert unnormalize(answer, stats) == pytest.approx(published)
    assert np.array_equal(
        unnormalize(answer, ActionStats.from_json(value)), unnormalize(answer, stats)
    )


@pytest.mark.parametrize(
    "change",
    [
        {"q01": None}, {"q01": "x"}, {"q01": 3}, {"q99": ["a"] * 7}, {"q99": [None] * 7}, {"mean": "x"},
        {"q01": [float("nan")] * 7}, {"q99": [float("inf")] * 7}, {"q01": [9.0] * 7}, {"mask": None},
        {"mask": ["a"] * 7}, {"mask": [None] * 7}, {"mask": [2] * 7}, {"q01": [[0.0] * 7]}, {"q01": []},
    ],
    ids=str,
)  # fmt: skip
def test_statistics_that_are_none(change):
    value = ActionStats.of(sample(), MASK).to_json()
    with pytest.raises(UserError, match="action statistics"):
        ActionStats.from_json({**value, **change})
    for other in (None, [value], "x", 3):
        with pytest.raises(UserError, match="expected lists by name"):
            ActionStats.from_json(other)
    assert ActionStats.from_json({**value, "mask": [int(m) for m in MASK]}).to_json() == value


def test_unknown_bounds_and_lists_of_other_lengths_are_refused():
    value = ActionStats.of(turning(), MASK, "minmax", rest=True).to_json()
    with pytest.raises(UserError, match="bounds 'sigma'"):
        ActionStats.from_json({**value, "invact": {"bounds": "sigma"}})
    with pytest.raises(UserError, match="bounds 3"):
        ActionStats.from_json({**value, "invact": 3})
    with pytest.raises(UserError, match=r"lack .'max'"):
        ActionStats.from_json({n: v for n, v in value.items() if n != "max"})
    with pytest.raises(UserError, match="unequal lengths"):
        ActionStats.from_json({**value, "invact": {"rest_fraction": [0.5]}})
