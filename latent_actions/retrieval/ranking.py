"""Whole rankings: precision@K, recall@K and average precision, query and gallery sets of any size; and
linear probes: what can be read off a vector by one linear map, on takes that it was not fitted to.

Q queries, N gallery rows. The rules of metric.py hold: cosine, ties broken by index after a shuffle
fixed by the seed, the divisor K even where fewer positives exist, queries without a positive stay
in as 0. Probes are multinomial logistic regression with an L2 penalty on standardized features, 5 folds
by take.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import gammaln

from invact_vla.core.errors import UserError
from invact_vla.stats.bootstrap import as_ids
from latent_actions.retrieval.metric import TOP, normalize, sort_keys

_BLOCK = 256  # queries sorted at a time: bounds memory at 256 x N
RECALLS = (1, 5, 10)
FOLDS = 5
_ITERATIONS = 200


@dataclass(frozen=True)
class Pool:
    """Who may be found: queries' and gallery's labels, and groups that are left out.

    A gallery row is left out for a query of the same group; no groups: nothing is left out."""

    query_labels: Sequence[Hashable]
    gallery_labels: Sequence[Hashable]
    query_groups: Sequence[Hashable] | None = None
    gallery_groups: Sequence[Hashable] | None = None

    @classmethod
    def of(
        cls, labels: Sequence[Hashable], groups: Sequence[Hashable], queries: Sequence[int],
        gallery: Sequence[int],
    ) -> "Pool":  # fmt: skip
        """Some rows of N clips, labels and groups (N,), as queries and as gallery."""
        columns = [
            [c[row] for row in rows] for c in (labels, groups) for rows in (queries, gallery)
        ]
        return cls(*columns)

    def blocks(self) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        """(rows of queries, same label, left out): the masks are bool (rows, N)."""
        count = len(self.query_labels)
        labels = as_ids([*self.query_labels, *self.gallery_labels])
        groups = np.arange(len(labels))  # all differ: nothing is left out
        if self.query_groups is not None and self.gallery_groups is not None:
            groups = as_ids([*self.query_groups, *self.gallery_groups])
        for start in range(0, count, _BLOCK):
            rows = slice(start, min(start + _BLOCK, count))
            same = labels[rows, None] == labels[None, count:]
            yield rows, same, groups[rows, None] == groups[None, count:]

    def counts(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each query how many rows may be found, and how many of those have its label: (Q,) twice."""
        each = [((~out).sum(axis=1), (same & ~out).sum(axis=1)) for _, same, out in self.blocks()]
        size, positives = (np.concatenate(parts) for parts in zip(*each, strict=True))
        return size, positives


@dataclass(frozen=True)
class Ranked:
    """Scores of the queries, each (Q,) in [0, 1]; recall: {K: any positive among the first K}."""

    precision: np.ndarray
    recall: dict[int, np.ndarray]
    average_precision: np.ndarray


@dataclass(frozen=True)
class PoolLevels:
    """Means over the queries of what a random order is expected to score, and a perfect one."""

    precision: float
    precision_oracle: float
    recall: dict[int, float]
    average_precision: float
    answerable: float  # share of queries with a positive: oracle of recall and average precision


def ranked(
    queries: np.ndarray, gallery: np.ndarray, pool: Pool, *, top: int = TOP, seed: int = 0
) -> Ranked:
    """Rank the whole gallery for every query: (Q, D) and (N, D) float -> Ranked."""
    expected = (len(pool.query_labels), len(pool.gallery_labels))
    if (len(queries), len(gallery)) != expected:
        raise ValueError(
            f"expected {expected} queries and gallery rows as labels, "
            f"got {(len(queries), len(gallery))}"
        )
    order = np.random.default_rng(seed).permutation(len(gallery))
    unit_queries, unit_gallery = normalize(queries), normalize(gallery)[order]
    precision, average = np.zeros(len(queries)), np.zeros(len(queries))
    recall = {k: np.zeros(len(queries)) for k in RECALLS}
    for rows, same, left_out in pool.blocks():
        out = left_out[:, order]
        places = np.argsort(sort_keys(unit_queries[rows] @ unit_gallery.T, out), axis=1)
        hits = np.take_along_axis(same[:, order] & ~out, places, 1)
        precision[rows] = hits[:, :top].sum(axis=1) / top
        average[rows] = average_precision(hits)
        for k, values in recall.items():
            values[rows] = hits[:, :k].any(axis=1)
    return Ranked(precision, recall, average)


def average_precision(hits: np.ndarray) -> np.ndarray:
    """Mean over the positives of the precision at their ranks: bool (Q, N), best first -> (Q,).

    0 for a query without positives."""
    found = hits.cumsum(axis=1)
    at_rank = found / np.arange(1, hits.shape[1] + 1)
    return (at_rank * hits).sum(axis=1) / np.maximum(hits.sum(axis=1), 1)


def nearer_rate(vectors: np.ndarray, near: np.ndarray, far: np.ndarray) -> np.ndarray:
    """Per query the share of pairs (a near row, a far row) in which the first is the nearer, ties
    half: (N, D), masks bool (N, N) -> float64 (N,), NaN for a query without such pairs."""
    unit = normalize(vectors)
    rates = np.full(len(unit), np.nan)
    for i, (close, apart) in enumerate(zip(near, far, strict=True)):
        similarity = unit @ unit[i]
        first, second = similarity[close], np.sort(similarity[apart])
        if len(first) and len(second):
            below = np.searchsorted(second, first, "left") + np.searchsorted(second, first, "right")
            rates[i] = below.mean() / 2 / len(second)
    return rates


def pool_levels(pool: Pool, top: int = TOP) -> PoolLevels:
    """What the pool allows, whatever the encoder."""
    size, positives = pool.counts()
    return PoolLevels(
        precision=float(np.mean(positives / np.maximum(size, top))),
        precision_oracle=float(np.mean(np.minimum(positives, top) / top)),
        recall={k: float(np.mean(_recall_chance(positives, size, k))) for k in RECALLS},
        average_precision=float(np.mean(_average_precision_chance(positives, size))),
        answerable=float(np.mean(positives > 0)),
    )


def _recall_chance(positives: np.ndarray, size: np.ndarray, k: int) -> np.ndarray:
    """1 - C(G - R, k) / C(G, k): a random order has a positive among its first k."""
    size, positives = size.astype(float), positives.astype(float)
    k_fit = np.minimum(k, size)
    room = size - positives - k_fit  # negative: the first k cannot all be wrong
    safe = np.maximum(room, 0)
    log_miss = gammaln(size - positives + 1) - gammaln(safe + 1)
    log_miss -= gammaln(size + 1) - gammaln(size - k_fit + 1)
    return np.where(positives == 0, 0.0, np.where(room < 0, 1.0, 1 - np.exp(log_miss)))


def _average_precision_chance(positives: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Expected average precision of a random order of G rows with R positives:
    (H_G + (G - H_G) (R - 1) / (G - 1)) / G, H_G the harmonic number; 0 without positives."""
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, max(int(size.max()), 1) + 1))])
    h, size = harmonic[size], np.maximum(size, 1).astype(float)
    share = np.where(size > 1, (positives - 1) / np.maximum(size - 1, 1), 0.0)
    return np.where(positives > 0, (h + (size - h) * share) / size, 0.0)


def probe_hits(
    features: np.ndarray, labels: Sequence[Hashable], groups: Sequence[Hashable], *, seed: int = 0
) -> np.ndarray:
    """Whether each clip's label is predicted by a probe fitted on the other folds: float64 (N,).

    features (N, D), labels (N,), groups (N,): clips of one group share a fold. The sum of the
    clips' losses has the penalty |W|^2 / 2. A label that the other folds lack counts as missed.
    UserError if there is one label or one group only."""
    label_ids, group_ids = as_ids(labels), as_ids(groups)
    found = len(set(labels)), len(set(groups))
    if min(found) < 2:
        raise UserError(f"a probe needs two labels and two takes, got {found[0]} and {found[1]}")
    fold_of = folds(group_ids, seed)[group_ids]
    hits = np.zeros(len(label_ids))
    for fold in np.unique(fold_of):
        test = fold_of == fold
        predicted = _fit_predict(features[~test], label_ids[~test], features[test])
        hits[test] = predicted == label_ids[test]
    return hits


def folds(group_ids: np.ndarray, seed: int, count: int = FOLDS) -> np.ndarray:
    """Fold of each group, int64 (G,): at most `count` folds of as equal size as can be."""
    groups = int(group_ids.max()) + 1
    order = np.random.default_rng(seed).permutation(groups)
    fold = np.empty(groups, np.int64)
    fold[order] = np.arange(groups) % min(count, groups)
    return fold


def chance_of(labels: Sequence[Hashable]) -> float:
    """Share of the most frequent label, in [0, 1]: what a probe scores that sees nothing."""
    return float(np.bincount(as_ids(labels)).max() / len(labels))


def _fit_predict(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Labels of the test rows: fit by L-BFGS in float64 from zero, so without randomness."""
    known, targets = np.unique(labels, return_inverse=True)
    mean, spread = train.mean(axis=0), train.std(axis=0) + 1e-6
    x = torch.from_numpy(((train - mean) / spread).astype(np.float64))
    y = torch.from_numpy(targets.astype(np.int64))
    weight = torch.zeros(x.shape[1], len(known), dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(len(known), dtype=torch.float64, requires_grad=True)
    how = "strong_wolfe"
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=_ITERATIONS, line_search_fn=how)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        error = torch.nn.functional.cross_entropy(x @ weight + bias, y, reduction="sum")
        value = (error + 0.5 * weight.square().sum()) / len(x)
        value.backward()
        return value

    optimizer.step(loss)  # pyright: ignore[reportArgumentType]
    shown = torch.from_numpy(((test - mean) / spread).astype(np.float64))
    return known[(shown @ weight + bias).argmax(dim=1).numpy()]
