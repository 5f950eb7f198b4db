"""Precision@10 against a naive loop, against closed forms, and on published counts."""

import numpy as np
import pytest

from invact_vla.core.errors import UserError
from latent_actions.retrieval.metric import (
    TOP,
    LevelsConfig,
    bounds_of,
    main,
    precision_at,
    read_histogram,
    score_bounds,
    top_indices,
)
from tests.paths import GOLDEN, needs_golden


def naive(queries, gallery, labels, groups, *, top=TOP, seed=0):
    """The definition, one comparison at a time."""
    order = np.random.default_rng(seed).permutation(len(labels))
    unit = [row / np.linalg.norm(row) for row in gallery]
    scores = []
    for i, query in enumerate(queries):
        query = query / np.linalg.norm(query)
        allowed = [j for j in order if groups[j] != groups[i]]
        ranked = sorted(
            allowed, key=lambda j: -float(query @ unit[j])
        )  # stable: ties keep the order
        scores.append(sum(labels[j] == labels[i] for j in ranked[:top]) / top)
    return np.array(scores)


@pytest.mark.parametrize("n,groups", [(300, 7), (60, 3), (25, 2), (12, 12), (8, 2)])
def test_equals_naive_reference(n, groups):
    rng = np.random.default_rng(n)
    queries, gallery = rng.normal(size=(2, n, 16)).astype(np.float32)
    labels = rng.integers(5, size=n).tolist()
    scenes = rng.integers(groups, size=n).tolist() if groups < n else list(range(n))
    expected = naive(queries, gallery, labels, scenes, seed=3)
    np.testing.assert_allclose(precision_at(queries, gallery, labels, scenes, seed=3), expected)


def test_ties_are_broken_by_index_after_the_shuffle():
    rng = np.random.default_rng(0)
    rows = np.eye(4, dtype=np.float32)[
        rng.integers(4, size=200)
    ]  # many exact ties, exact arithmetic
    labels, scenes = rng.integers(6, size=200).tolist(), rng.integers(4, size=200).tolist()
    for seed in range(3):
        expected = naive(rows, rows, labels, scenes, seed=seed)
        np.testing.assert_array_equal(precision_at(rows, rows, labels, scenes, seed=seed), expected)


def test_negative_similarities_and_zeros_are_ordered():
    angle = np.linspace(0, np.pi, 21)
    rows = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    found = top_indices(rows[:1], rows, [0] * 1 + list(range(1, 21)), top=20)
    np.testing.assert_array_equal(found[0], np.arange(1, 21))


def test_a_small_gallery_leaves_places_empty():
    rows = np.eye(3, dtype=np.float32)
    scores = precision_at(rows, rows, ["a", "a", "a"], [0, 1, 2])
    np.testing.assert_allclose(scores, 0.2)  # two positives, divisor 10
    assert (top_indices(rows, rows, [0, 1, 2])[:, 2:] == -1).all()


def test_unanswerable_queries_count_as_zero():
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(40, 4)).astype(np.float32)
    scores = precision_at(rows, rows, ["rare"] + ["often"] * 39, [i % 4 for i in range(40)])
    assert scores[0] == 0 and len(scores) == 40


def test_chance_is_what_random_vectors_score():
    rng = np.random.default_rng(2)
    labels, scenes = rng.integers(8, size=1500).tolist(), rng.integers(5, size=1500).tolist()
    rows = rng.normal(size=(1500, 64)).astype(np.float32)
    score = 100 * precision_at(rows, rows, labels, scenes).mean()
    assert score == pytest.approx(bounds_of(labels, scenes).chance, abs=1.0)


def test_oracle_is_what_perfect_vectors_score():
    rng = np.random.default_rng(3)
    labels, scenes = rng.integers(30, size=300).tolist(), rng.integers(3, size=300).tolist()
    rows = np.eye(30, dtype=np.float32)[labels]
    level = bounds_of(labels, scenes)
    assert 100 * precision_at(rows, rows, labels, scenes).mean() == pytest.approx(level.oracle)
    assert level.n == 300 and level.groups == 3


def test_levels_by_hand():
    level = score_bounds({"kitchen": {"pick": 2, "pour": 1}, "bench": {"pick": 1}}, top=1)
    # the kitchen's picks find the bench's pick for sure, pour nothing; the bench finds 2 of 3
    assert level.chance == pytest.approx(100 * (2 * 1 + 0 + 2 / 3) / 4)
    assert level.oracle == level.answerable == pytest.approx(75.0)


def test_bad_input_is_refused():
    rows = np.ones((4, 2), np.float32)
    with pytest.raises(ValueError, match="expected queries"):
        precision_at(rows, rows[:3], ["a"] * 4, [0] * 4)
    with pytest.raises(UserError, match="NaN"):
        precision_at(rows * np.nan, rows, ["a"] * 4, [0] * 4)
    with pytest.raises(ValueError, match="no clips"):
        score_bounds({"a": {}})


@needs_golden
def test_published_levels(capsys):
    path = GOLDEN / "retrieval" / "val_histogram.json"
    groupings = read_histogram(path)
    keyword = score_bounds(groupings["by_activity_keyword"])
    assert keyword.n == 8961
    assert keyword.chance == pytest.approx(3.033, abs=0.01)
    assert keyword.oracle == pytest.approx(83.99, abs=0.01)
    activity = score_bounds(groupings["by_institution_activity"])
    assert activity.chance == pytest.approx(3.209, abs=0.01)
    assert main(LevelsConfig(histogram=path)) == 0
    printed = capsys.readouterr().out
    assert "3.033" in printed and "83.99" in printed and "3.209" in printed
