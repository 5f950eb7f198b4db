"""Rankings against a naive loop over all pairs, on random data with many ties, and their levels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latent_actions.retrieval.metric import TOP, precision_at
from latent_actions.retrieval.ranking import RECALLS, Pool, pool_levels, ranked


def naive_order(query, gallery, allowed, seed):
    """Allowed rows by falling product, ties in the order of the fixed shuffle."""
    order = np.random.default_rng(seed).permutation(len(gallery))
    return sorted((j for j in order if allowed[j]), key=lambda j: -float(query @ gallery[j]))


def naive(queries, gallery, pool, seed):
    """Precision, recalls and average precision by their definitions, one pair at a time."""
    rows = []
    for i, query in enumerate(queries):
        allowed = [pool.gallery_groups[j] != pool.query_groups[i] for j in range(len(gallery))]
        order = naive_order(query, gallery, allowed, seed)
        hits = [pool.gallery_labels[j] == pool.query_labels[i] for j in order]
        precisions = [sum(hits[: r + 1]) / (r + 1) for r, hit in enumerate(hits) if hit]
        average = sum(precisions) / len(precisions) if precisions else 0.0
        rows.append([sum(hits[:TOP]) / TOP, *(float(any(hits[:k])) for k in RECALLS), average])
    return np.array(rows)


@st.composite
def problems(draw):
    """Vectors on a few axes: exact arithmetic, so that ties are ties in both codes."""
    count, others = draw(st.integers(1, 30)), draw(st.integers(1, 30))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    axes = np.concatenate([np.eye(3), -np.eye(3)]).astype(np.float32)
    labels, groups = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    columns = [
        rng.integers(size, size=n).tolist()
        for size, n in ((labels, count), (labels, others), (groups, count), (groups, others))
    ]
    return axes[rng.integers(6, size=count)], axes[rng.integers(6, size=others)], Pool(*columns)


@settings(max_examples=60, deadline=None)
@given(problems(), st.integers(0, 3))
def test_equals_naive_reference(problem, seed):
    queries, gallery, pool = problem
    found = ranked(queries, gallery, pool, seed=seed)
    columns = [found.precision, *(found.recall[k] for k in RECALLS), found.average_precision]
    np.testing.assert_allclose(np.stack(columns, 1), naive(queries, gallery, pool, seed))


@settings(max_examples=60, deadline=None)
@given(problems(), st.integers(0, 3))
def test_precision_at_equals_naive_reference(problem, seed):
    rows, _, pool = problem
    square = Pool(pool.query_labels, pool.query_labels, pool.query_groups, pool.query_groups)
    expected = naive(rows, rows, square, seed)[:, 0]
    scores = precision_at(rows, rows, pool.query_labels, pool.query_groups, seed=seed)
    np.testing.assert_allclose(scores, expected)


def test_chance_levels_are_what_random_vectors_score():
    rng = np.random.default_rng(0)
    labels, groups = rng.integers(6, size=40).tolist(), rng.integers(4, size=40).tolist()
    pool = Pool(labels, labels, groups, groups)
    levels = pool_levels(pool)
    runs = [ranked(*rng.normal(size=(2, 40, 64)).astype(np.float32), pool) for _ in range(300)]
    assert np.mean([run.precision for run in runs]) == pytest.approx(levels.precision, abs=0.005)
    mean = np.mean([run.average_precision for run in runs])
    assert mean == pytest.approx(levels.average_precision, abs=0.005)
    for k in RECALLS:
        assert np.mean([run.recall[k] for run in runs]) == pytest.approx(levels.recall[k], abs=0.01)


def test_oracle_levels_are_what_perfect_vectors_score():
    labels = [0, 0, 0, 1, 1, 2]
    pool = Pool(labels, labels, range(6), range(6))
    found = ranked(np.eye(3)[labels], np.eye(3)[labels], pool)
    levels = pool_levels(pool)
    assert found.precision.mean() == pytest.approx(levels.precision_oracle)
    assert found.average_precision.mean() == pytest.approx(levels.answerable) == 5 / 6


def test_without_groups_nothing_is_left_out():
    found = ranked(np.eye(2), np.eye(2), Pool("ab", "ab"))
    np.testing.assert_array_equal(found.recall[1], [1, 1])


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="as labels"):
        ranked(np.eye(2), np.eye(3, 2), Pool("ab", "ab"))
