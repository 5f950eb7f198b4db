"""k-means for small codebooks: k-means++ seeding, Lloyd steps, restarts; exact for a given seed.

Written out in NumPy, because 8 centers in a few dimensions need no library and the result must
not depend on a library's version or thread count.
"""

import numpy as np


def kmeans(
    points: np.ndarray, centers: int, rng: np.random.Generator, restarts: int = 4, steps: int = 50
) -> np.ndarray:
    """Centers (C, D) float64 of points (N, D), the best of some restarts; N >= C.

    A center that loses all its points moves to the point farthest from its center, so all C are
    used whenever the points have C distinct values. Centers are ordered by their first coordinate.
    """
    points = np.asarray(points, np.float64)
    if len(points) < centers:
        raise ValueError(f"{centers} centers need at least as many points, got {len(points)}")
    best, best_error = points[:centers], np.inf
    for _ in range(restarts):
        found = _lloyd(points, _plus_plus(points, centers, rng), steps)
        error = squared_distances(points, found).min(axis=1).sum()
        if error < best_error:
            best, best_error = found, error
    return best[np.argsort(best[:, 0], kind="stable")]


def balanced_kmeans(
    points: np.ndarray, centers: int, rng: np.random.Generator, steps: int = 20, rounds: int = 50
) -> tuple[np.ndarray, np.ndarray]:
    """Centers (C, D) and offsets (C,), float64, such that argmin of squared distance + offset gives each
    center a nearly equal part of points (N, D).

    Lloyd steps on assignments of equal parts: prices of the centers, found by optimal transport with an
    entropy of a part of the squared radius of a cell (Sinkhorn). Ordered as in `kmeans`.
    """
    points = np.asarray(points, np.float64)
    found, offsets = kmeans(points, centers, rng, restarts=1), np.zeros(centers)
    for _ in range(steps):
        cost = squared_distances(points, found)
        small = max(0.1 * float(np.median(cost.min(axis=1))), 1e-9 * float(cost.mean()), 1e-12)
        for unit in np.geomspace(max(float(cost.mean()), small), small, rounds):
            share = _softmax(-(cost + offsets) / unit)
            offsets += unit * np.log(np.maximum(share.mean(axis=0) * centers, 1e-12))
        chosen = (cost + offsets).argmin(axis=1)
        counts = np.bincount(chosen, minlength=centers)
        sums = np.zeros_like(found)
        np.add.at(sums, chosen, points)
        found = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], found)
    order = np.argsort(found[:, 0], kind="stable")
    return found[order], (offsets - offsets.min())[order]


def _softmax(values: np.ndarray) -> np.ndarray:
    weights = np.exp(values - values.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def nearest(points: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Index of the nearest center of each point: int64 (N,). Ties go to the lower index."""
    return squared_distances(np.asarray(points, np.float64), centers).argmin(axis=1)


def squared_distances(points: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """(N, D) and (C, D) -> (N, C)."""
    cross = points @ centers.T
    return (points**2).sum(1, keepdims=True) - 2 * cross + (centers**2).sum(1)


def _plus_plus(points: np.ndarray, centers: int, rng: np.random.Generator) -> np.ndarray:
    """k-means++ (Arthur and Vassilvitskii 2007): each next center far from those before."""
    chosen = [points[rng.integers(len(points))]]
    for _ in range(centers - 1):
        distance = np.maximum(squared_distances(points, np.stack(chosen)).min(axis=1), 0)
        total = distance.sum()
        weights = distance / total if total > 0 else None
        chosen.append(points[rng.choice(len(points), p=weights)])
    return np.stack(chosen)


def _lloyd(points: np.ndarray, centers: np.ndarray, steps: int) -> np.ndarray:
    labels = np.full(len(points), -1)
    for _ in range(steps):
        distance = squared_distances(points, centers)
        new = distance.argmin(axis=1)
        if np.array_equal(new, labels):
            break
        labels = new
        counts = np.bincount(labels, minlength=len(centers))
        sums = np.zeros_like(centers)
        np.add.at(sums, labels, points)
        centers = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centers)
        far = np.argsort(-distance.min(axis=1), kind="stable")
        for i, empty in enumerate(np.flatnonzero(counts == 0)):
            centers[empty] = points[far[i]]
    return centers
