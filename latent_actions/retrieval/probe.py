"""Linear probes: what can be read off a vector by one linear map, on takes that it was not fitted to.

Multinomial logistic regression with an L2 penalty on standardized features, 5 folds by take.
"""

from collections.abc import Hashable, Sequence

import numpy as np
import torch

from invact_vla.core.errors import UserError
from invact_vla.stats.bootstrap import as_ids

FOLDS = 5
_ITERATIONS = 200


def probe_hits(
    features: np.ndarray, labels: Sequence[Hashable], groups: Sequence[Hashable], *, seed: int = 0
) -> np.ndarray:
    """Whether each clip's label is predicted by a probe fitted on the other folds: float64 (N,).

    features (N, D), labels (N,), groups (N,): clips of one group share a fold. The sum of the
    clips' losses has the penalty |W|^2 / 2. A label that the other folds lack counts as missed.
    UserError if there is one label or one group only.
    """
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
    fit = {"max_iter": _ITERATIONS, "line_search_fn": "strong_wolfe"}
    optimizer = torch.optim.LBFGS([weight, bias], **fit)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        error = torch.nn.functional.cross_entropy(x @ weight + bias, y, reduction="sum")
        value = (error + 0.5 * weight.square().sum()) / len(x)
        value.backward()
        return value

    optimizer.step(loss)  # pyright: ignore[reportArgumentType]
    shown = torch.from_numpy(((test - mean) / spread).astype(np.float64))
    return known[(shown @ weight + bias).argmax(dim=1).numpy()]
