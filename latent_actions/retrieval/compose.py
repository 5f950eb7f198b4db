"""A long action as a composition of short ones: five ways to compare two sequences of vectors.

A keystep of D seconds is cut into windows of about 2 s (or into its real atomic actions, `parts`),
each window gets a vector, and two keysteps are compared by

    mean        cosine of the means (a single vector each)
    max         cosine of the largest value of each component (a single vector each)
    dtw         minus the cost of dynamic time warping, cosine cost, divided by both lengths
    chamfer     mean of the best matches both ways
    gt_atomic   mean over the real atomic actions

dtw and chamfer re-rank what `mean` ranks first. N_i windows of keystep i, D width.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from latent_actions.retrieval.metric import TOP, normalize, top_indices

Composition = Literal["mean", "max", "dtw", "chamfer", "gt_atomic"]
Sequences = Sequence[np.ndarray]  # M arrays, float (N_i, D)
RERANKED = 200  # candidates that a sequence comparison orders anew
_FAR = 1e9  # cost of a place that no path may use

# (queries' sequence (n, D), candidates (C, L, D) padded, their lengths (C,)) -> similarity (C,)
Compare = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def window_count(duration_s: float, window_s: float, largest: int) -> int:
    """round(duration / window), at least 1, at most `largest`."""
    return int(np.clip(np.floor(duration_s / window_s + 0.5), 1, largest))


def mean_vector(sequence: np.ndarray) -> np.ndarray:
    """(N, D) -> (D,) of unit length."""
    return normalize(sequence.mean(axis=0, keepdims=True))[0]


def max_vector(sequence: np.ndarray) -> np.ndarray:
    """(N, D) -> (D,) of unit length."""
    return normalize(sequence.max(axis=0, keepdims=True))[0]


def dtw(query: np.ndarray, candidates: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Minus the warping cost over (n + length): unit rows (n, D), (C, L, D) -> (C,)."""
    cost = 1 - np.einsum("nd,cld->cnl", query, candidates)
    n, longest = cost.shape[1:]
    total = np.full((len(cost), n + 1, longest + 1), _FAR)
    total[:, 0, 0] = 0
    for i in range(1, n + 1):
        for j in range(1, longest + 1):
            before = np.minimum(total[:, i - 1, j], total[:, i, j - 1])
            before = np.minimum(before, total[:, i - 1, j - 1])
            total[:, i, j] = cost[:, i - 1, j - 1] + before
    return -total[np.arange(len(cost)), n, lengths] / (n + lengths)


def chamfer(query: np.ndarray, candidates: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Half the mean best match of the query's rows, half that of the candidate's: -> (C,)."""
    similarity = np.einsum("nd,cld->cnl", query, candidates)
    inside = np.arange(candidates.shape[1])[None] < lengths[:, None]
    there = np.where(inside[:, None], similarity, -_FAR).max(axis=2).mean(axis=1)
    back = np.where(inside, similarity.max(axis=1), 0).sum(axis=1) / lengths
    return (there + back) / 2


COMPARE: dict[str, Compare] = {"dtw": dtw, "chamfer": chamfer}
SINGLE = {"mean": mean_vector, "max": max_vector}


def retrieve(
    queries: Sequences, gallery: Sequences, composition: Composition, groups: Sequence[str], *,
    top: int = TOP, seed: int = 0,
) -> np.ndarray:  # fmt: skip
    """Gallery rows of every query, best first, its own group left out: (M, top) int64, -1 for none.

    gt_atomic takes sequences of real atomic actions and composes them as mean does.
    """
    single = SINGLE.get(composition, mean_vector)
    vectors = [np.stack([single(sequence) for sequence in side]) for side in (queries, gallery)]
    if composition not in COMPARE:
        return top_indices(vectors[0], vectors[1], groups, top=top, seed=seed)
    compare = COMPARE[composition]
    found = top_indices(vectors[0], vectors[1], groups, top=max(RERANKED, top), seed=seed)
    units = [normalize(sequence) for sequence in gallery]
    return np.stack(
        [
            _rerank(normalize(query), places[places >= 0], units, compare, top)
            for query, places in zip(queries, found, strict=True)
        ]
    )


def _rerank(
    query: np.ndarray, places: np.ndarray, units: Sequences, compare: Compare, top: int
) -> np.ndarray:
    """The first `top` of the candidates by the sequence comparison; ties keep their order."""
    result = np.full(top, -1, np.int64)
    if len(places):
        lengths = np.array([len(units[place]) for place in places])
        padded = np.zeros((len(places), int(lengths.max()), query.shape[1]), np.float32)
        for row, place in enumerate(places):
            padded[row, : lengths[row]] = units[place]
        best = np.argsort(-compare(query, padded, lengths), kind="stable")[:top]
        result[: len(best)] = places[best]
    return result
