"""Compositions of vectors: warping against a textbook recursion, retrieval against a loop."""

import numpy as np
import pytest

from latent_actions.retrieval.benchmarks.keystep import (
    chamfer,
    dtw,
    max_vector,
    mean_vector,
    retrieve,
    window_count,
)
from latent_actions.retrieval.metric import hits_of, normalize, precision_at


def sequences(rng, count, width=6):
    return [normalize(rng.normal(size=(rng.integers(1, 6), width))) for _ in range(count)]


def padded(parts):
    lengths = np.array([len(part) for part in parts])
    rows = np.zeros((len(parts), lengths.max(), parts[0].shape[1]), np.float32)
    for place, part in enumerate(parts):
        rows[place, : len(part)] = part
    return rows, lengths


def warping_cost(a, b):
    """Cheapest monotone path from the first pair to the last, by recursion."""

    def cheapest(i, j):
        cost = 1 - float(a[i] @ b[j])
        before = [(i - 1, j), (i, j - 1), (i - 1, j - 1)]
        open_ways = [cheapest(*place) for place in before if min(place) >= 0]
        return cost + (min(open_ways) if open_ways else 0.0)

    return cheapest(len(a) - 1, len(b) - 1)


def test_dtw_and_chamfer_equal_their_definitions():
    rng = np.random.default_rng(0)
    query, parts = sequences(rng, 1)[0], sequences(rng, 12)
    rows, lengths = padded(parts)
    expected = [-warping_cost(query, part) / (len(query) + len(part)) for part in parts]
    np.testing.assert_allclose(dtw(query, rows, lengths), expected, atol=1e-5)
    expected = [((query @ p.T).max(1).mean() + (query @ p.T).max(0).mean()) / 2 for p in parts]
    np.testing.assert_allclose(chamfer(query, rows, lengths), expected, atol=1e-6)


def test_dtw_sees_the_order_and_chamfer_does_not():
    forth = np.eye(3, dtype=np.float32)
    rows, lengths = padded([forth, forth[::-1]])
    same, turned = dtw(forth, rows, lengths)
    assert same == pytest.approx(0) and turned < -0.2
    assert chamfer(forth, rows, lengths) == pytest.approx([1, 1])


@pytest.mark.parametrize("name,single", [("mean", mean_vector), ("max", max_vector)])
def test_single_vectors_are_ordinary_retrieval(name, single):
    rng = np.random.default_rng(1)
    parts, labels = sequences(rng, 40), rng.integers(4, size=40).tolist()
    groups = [str(value) for value in rng.integers(3, size=40)]
    found = hits_of(retrieve(parts, parts, name, groups), labels)
    rows = np.stack([single(part) for part in parts])
    np.testing.assert_allclose(found, precision_at(rows, rows, labels, groups))


def test_reranking_orders_all_candidates_of_other_groups():
    rng = np.random.default_rng(2)
    parts, groups = sequences(rng, 30), [str(i % 4) for i in range(30)]
    found = retrieve(parts, parts, "dtw", groups)
    for i, query in enumerate(parts):
        rest = [j for j in range(30) if groups[j] != groups[i]]
        cost = {j: warping_cost(query, parts[j]) / (len(query) + len(parts[j])) for j in rest}
        best = sorted(cost.values())[:10]
        np.testing.assert_allclose([cost[j] for j in found[i]], best, atol=1e-5)


def test_a_small_gallery_leaves_places_empty():
    parts = sequences(np.random.default_rng(3), 3)
    found = retrieve(parts, parts, "chamfer", ["a", "a", "b"])
    assert (found[:, 2:] == -1).all() and hits_of(found, ["x", "x", "x"])[2] == pytest.approx(0.2)


@pytest.mark.parametrize("duration,count", [(0.3, 1), (2.9, 1), (3.1, 2), (11.3, 6), (99, 16)])
def test_windows(duration, count):
    assert window_count(duration, 2.0, 16) == count
