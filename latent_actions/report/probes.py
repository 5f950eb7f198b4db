"""What a probe reads off codes or vectors, on videos that it was not fitted to, with intervals.

N pairs, D features, A dimensions of an action. Pairs of one group (a video, a take) share a fold, so
nothing of a test video is seen in the fit: neither in its weights nor in the choice of its strength.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from invact_vla.stats.bootstrap import as_ids, percentile_interval, resample
from latent_actions.retrieval.ranking import folds

MIN_GROUPS = 5  # fewer videos make no folds worth the name
STRENGTHS = np.logspace(-4, 2, 13)  # of the ridge, times the number of training pairs
DRAWS = 1000  # of the bootstrap
HIDDEN, STEPS, CHECK_EVERY = 64, 200, 20  # of the MLP
Fit = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval. n: pairs; clusters: videos or takes, drawn whole; draws: (B,) of
    the bootstrap, paired between estimates over the same clusters."""

    value: float
    low: float
    high: float
    n: int
    clusters: int
    draws: np.ndarray = field(repr=False, compare=False, default_factory=lambda: np.zeros(0))

    @classmethod
    def of(
        cls, value: float, draws: np.ndarray, n: int, clusters: Sequence[Hashable]
    ) -> "Estimate":
        """The value with the interval of its draws; NaN where no draw has a value."""
        found = draws[~np.isnan(draws)]
        low, high = percentile_interval(found) if len(found) else (np.nan, np.nan)
        return cls(value, low, high, n, len(set(clusters)), draws)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        names = ("value", "low", "high", "n", "clusters")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Probed:
    """What a probe says of held-out pairs, float64 (N, A), its squared errors, and those of the mean of
    its training pairs."""

    predicted: np.ndarray
    error: np.ndarray
    spread: np.ndarray
    groups: Sequence[Hashable]

    def r2_of_all(self) -> Estimate:
        """1 - (sum of all errors) / (sum of all spreads), for targets that are one thing in parts."""
        error, spread = self.error.sum(axis=1), self.spread.sum(axis=1)
        draws = 1 - resample(error, spread, self.groups, draws=DRAWS)
        return Estimate.of(1 - float(error.sum() / spread.sum()), draws, len(error), self.groups)

    def r2(self, dims: Sequence[int] | None = None) -> Estimate:
        """Mean R2 over some dimensions of the action, all by default; NaN where none of them varies.

        R2 of a dimension: 1 - (sum of error) / (sum of spread): 0 is what the mean gives, below 0 is
        worse than the mean.
        """
        chosen = range(self.error.shape[1]) if dims is None else dims
        moving = [dim for dim in chosen if self.spread[:, dim].sum() > 1e-12]
        if not moving:
            return Estimate.of(np.nan, np.zeros(0), len(self.error), self.groups)
        value = np.mean([1 - self.error[:, d].sum() / self.spread[:, d].sum() for d in moving])
        draws = [
            1 - resample(self.error[:, d], self.spread[:, d], self.groups, draws=DRAWS)
            for d in moving
        ]
        return Estimate.of(float(value), np.mean(draws, axis=0), len(self.error), self.groups)


def ridge(
    features: np.ndarray, actions: np.ndarray, groups: Sequence[Hashable], *, seed: int = 0,
    train_pairs: int | None = None,
) -> Probed:  # fmt: skip
    """Ridge regression from features (N, D) to actions (N, A), 5 folds by group (N,); the strength is
    chosen for each dimension on folds of the training groups.

    train_pairs: fit on so many pairs of each training part alone, whole groups of them. ValueError for
    fewer than MIN_GROUPS groups.
    """
    return _out_of_fold(features, actions, groups, _fit_ridge, seed, train_pairs)


def mlp(
    features: np.ndarray, actions: np.ndarray, groups: Sequence[Hashable], *, seed: int = 0
) -> Probed:
    """As `ridge`, by a network of one hidden layer that stops where held-out training groups say so."""

    def fit(x: np.ndarray, y: np.ndarray, ids: np.ndarray, test: np.ndarray) -> np.ndarray:
        return _fit_mlp(x, y, ids, test, seed)

    return _out_of_fold(features, actions, groups, fit, seed, None)


def one_hot(codes: np.ndarray, codebook_size: int) -> np.ndarray:
    """Codes int (N, K) as float64 (N, K * C)."""
    return np.eye(codebook_size)[codes].reshape(len(codes), -1)


def transfer(
    features: np.ndarray, actions: np.ndarray, groups: Sequence[Hashable], other: np.ndarray
) -> np.ndarray:
    """Actions (M, A) that a ridge probe of all N pairs gives to other features (M, D)."""
    return _fit_ridge(features, actions, as_ids(groups), other)


def _out_of_fold(
    features: np.ndarray, actions: np.ndarray, groups: Sequence[Hashable], fit: Fit, seed: int,
    train_pairs: int | None,
) -> Probed:  # fmt: skip
    x, y, ids = np.asarray(features, np.float64), np.asarray(actions, np.float64), as_ids(groups)
    if len(set(groups)) < MIN_GROUPS:
        raise ValueError(f"a probe needs {MIN_GROUPS} videos, got {len(set(groups))}")
    fold_of = folds(ids, seed)[ids]
    predicted, spread = np.zeros_like(y), np.zeros_like(y)
    for fold in np.unique(fold_of):
        test, train = fold_of == fold, np.flatnonzero(fold_of != fold)
        if train_pairs is not None:
            train = _some_groups(train, ids, train_pairs, seed)
        predicted[test] = fit(x[train], y[train], ids[train], x[test])
        spread[test] = np.square(y[test] - y[train].mean(axis=0))
    return Probed(predicted, np.square(y - predicted), spread, list(groups))


def _some_groups(rows: np.ndarray, ids: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Rows of groups in a random order, up to `count` of them."""
    known = np.unique(ids[rows])
    place = np.zeros(ids.max() + 1, np.int64)
    place[known] = np.random.default_rng([seed, 1]).permutation(len(known))
    return rows[np.argsort(place[ids[rows]], kind="stable")][:count]


def _fit_ridge(x: np.ndarray, y: np.ndarray, ids: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Predictions (T, A) with the strength of each dimension that inner folds like best."""
    inner = folds(as_ids(ids.tolist()), 0)[as_ids(ids.tolist())]
    parts = [part for part in np.unique(inner) if (inner != part).any()]
    error = np.zeros((len(STRENGTHS), y.shape[1]))
    for part in parts:
        held = inner == part
        paths = _ridge_paths(x[~held], y[~held], x[held])
        error += np.square(paths - y[held]).sum(axis=1)
    best = error.argmin(axis=0) if parts else np.full(y.shape[1], len(STRENGTHS) // 2)
    return _ridge_paths(x, y, test)[best, :, np.arange(y.shape[1])].T


def _ridge_paths(x: np.ndarray, y: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Predictions (S, T, A) at every strength, features brought to unit variance; by the smaller one of
    the two matrices of products."""
    mean, scale = _scale(x)
    x, test, middle = (x - mean) / scale, (test - mean) / scale, y.mean(axis=0)
    if x.shape[1] <= len(x):
        values, axes = np.linalg.eigh(x.T @ x)
        left, right = test @ axes, axes.T @ (x.T @ (y - middle))
    else:
        values, axes = np.linalg.eigh(x @ x.T)
        left, right = (test @ x.T) @ axes, axes.T @ (y - middle)
    weights = 1 / (np.maximum(values, 0) + len(x) * STRENGTHS[:, None])
    return middle + np.einsum("td,sd,da->sta", left, weights, right, optimize=True)


def _scale(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of features (N, D); a feature that never changes says nothing."""
    scale = x.std(axis=0)
    return x.mean(axis=0), np.where(scale > 1e-9, scale, np.inf)


def _fit_mlp(
    x: np.ndarray, y: np.ndarray, ids: np.ndarray, test: np.ndarray, seed: int
) -> np.ndarray:
    """Predictions (T, A): full batches by AdamW, at the step that the first inner fold likes best."""
    numbers = as_ids(ids.tolist())
    held = torch.from_numpy(folds(numbers, 0)[numbers] == 0)
    mean, scale = _scale(x)
    middle, size = y.mean(axis=0), np.maximum(y.std(axis=0), 1e-9)
    inputs, shown = (torch.from_numpy((v - mean) / scale).float() for v in (x, test))
    wanted = torch.from_numpy((y - middle) / size).float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = torch.nn.Sequential(
            torch.nn.Linear(x.shape[1], HIDDEN),
            torch.nn.GELU(),
            torch.nn.Linear(HIDDEN, y.shape[1]),
        )
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.1, fused=True)
    best, predicted = float("inf"), np.zeros((len(test), y.shape[1]))
    for step in range(STEPS + 1):
        if step % CHECK_EVERY == 0:
            with torch.no_grad():
                error = float(torch.nn.functional.mse_loss(net(inputs[held]), wanted[held]))
                if error < best:
                    best, predicted = error, net(shown).double().numpy() * size + middle
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(net(inputs[~held]), wanted[~held]).backward()
        optimizer.step()
    return predicted
