"""What codes and vectors tell of true actions, in every frame, beside what the first frame tells
alone.

Every row of a table is a probe on the same pairs and the same folds: of the codes, of the vectors
they were cut from, of the first frame (8 x 8 pixels), of both, of codes dealt out anew, of uniform
codes, and of the true actions themselves, cut into as many codes: what a perfect labeler could say
with them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from invact_vla.core.errors import UserError
from invact_vla.stats.bootstrap import percentile_interval
from latent_actions.labelers.quantizers import ResidualQuantizerConfig
from latent_actions.report.probes import (
    MIN_GROUPS,
    Estimate,
    Probed,
    mlp,
    one_hot,
    ridge,
    transfer,
)
from latent_actions.report.stores import Labeled
from latent_actions.report.truth import Motion

CODES, FIRST, SHUFFLED, RANDOM, TRUE = (
    "codes",
    "first frame alone",
    "shuffled codes",
    "random codes",
    "true-action codes",
)
BOTH, VECTORS, MLP = "first frame and codes", "vectors", " (MLP)"
BUDGETS = (50, 100, 200, 400, 800, 1600, 3200)  # labels
REPEATS = 3  # draws of the labels of a budget


@dataclass(frozen=True)
class Scores:
    """R2 of a probe: mean over the translations, and of every dimension."""

    mean: Estimate
    dims: tuple[Estimate, ...]


@dataclass(frozen=True)
class Actions:
    """Probes of true actions. scores: frame -> what is probed -> its R2; best: the frame in which the
    codes tell most; gain: R2 of first frame and codes minus that of the first frame alone, in the best
    frame, None without videos; budget: (labels, R2 of the codes) in the best frame; names: of the
    dimensions in each frame; missing: why videos have no truth; rows: int64 (n,), the pairs."""

    scores: dict[str, dict[str, Scores]]
    best: str
    gain: Estimate | None
    budget: tuple[tuple[int, Estimate], ...]
    names: dict[str, tuple[str, ...]]
    missing: tuple[str, ...]
    rows: np.ndarray

    @property
    def headline(self) -> Estimate:
        """R2 of the codes in the best frame, mean over the translations."""
        return self.scores[self.best][CODES].mean


def measure_actions(
    labeled: Labeled, motion: Motion, first: np.ndarray | None, seed: int = 0
) -> Actions | str:
    """All probes of a store, or why there are none. first: float64 (n, F), features of the first
    frames of the pairs of `motion`, None without videos."""
    if not motion.frames:
        return motion.missing[0] if motion.missing else "no true actions of its videos are known"
    chosen = labeled.select(motion.rows)
    groups = chosen.groups
    if len(set(groups)) < MIN_GROUPS:
        return f"a probe needs {MIN_GROUPS} videos with true actions, got {len(set(groups))}"
    targets = np.concatenate(list(motion.frames.values()), axis=1)
    probed = {
        name: ridge(features, targets, groups, seed=seed)
        for name, features in _features(chosen, first, seed).items()
    }
    networks = {
        f"{name}{MLP}": mlp(features, targets, groups, seed=seed)
        for name, features in _features(chosen, first, seed).items()
        if name in (CODES, VECTORS, FIRST)
    }
    scores = {}
    for number, (frame, actions) in enumerate(motion.frames.items()):
        rows = {**probed, **networks}
        found = {name: _scores(result, motion, number) for name, result in rows.items()}
        upper = _true_codes(actions, chosen)
        if upper is not None:
            alone = Motion(motion.rows, {frame: actions}, motion.translations, ())
            found[TRUE] = _scores(ridge(upper, actions, groups, seed=seed), alone, 0)
        scores[frame] = found
    best = max(scores, key=lambda frame: np.nan_to_num(scores[frame][CODES].mean.value, nan=-9.0))
    return Actions(
        scores=scores,
        best=best,
        gain=_gain(scores[best]),
        budget=_budget(chosen.one_hot, motion.frames[best], groups, motion.translations, seed),
        names={frame: motion.names(frame) for frame in motion.frames},
        missing=motion.missing,
        rows=motion.rows,
    )


def difference(one: Estimate, other: Estimate) -> Estimate:
    """one - other, of estimates over the same pairs and videos, whose draws belong together."""
    if not len(one.draws) or not len(other.draws):
        return Estimate(np.nan, np.nan, np.nan, one.n, one.clusters)
    draws = one.draws - other.draws
    low, high = percentile_interval(draws)
    return Estimate(one.value - other.value, low, high, one.n, one.clusters, draws)


def human_to_robot(
    human: Labeled,
    motion: Motion,
    frame: str,
    robot: Labeled,
    actions: np.ndarray,
    rows: np.ndarray,
) -> tuple[Estimate, ...]:
    """Correlation of true translations of a robot with those that a probe reads off its codes, which
    was fitted to codes and translations of a hand: for x, y and z.

    frame: of `motion`, with the axes of the robot's base: forward, left, up. actions: float64 (n,
    A) of the robot's `rows`. Units differ, so it is correlations that are told.
    """
    chosen, other = human.select(motion.rows), robot.select(rows)
    hand = motion.frames[frame][:, :3]
    predicted = transfer(
        chosen.one_hot, hand / np.maximum(hand.std(axis=0), 1e-9), chosen.groups, other.one_hot
    )
    return tuple(_correlation(predicted[:, d], actions[:, d], other.groups) for d in range(3))


def _correlation(one: np.ndarray, other: np.ndarray, groups: Sequence[str]) -> Estimate:
    """Pearson correlation with an interval over whole groups; NaN where either does not vary."""
    numbers = np.unique(np.asarray(groups), return_inverse=True)[1]
    sums = np.stack([np.ones(len(one)), one, other, one * one, other * other, one * other])
    table = np.stack([np.bincount(numbers, weights=row) for row in sums], axis=1)
    rng = np.random.default_rng(0)
    picks = rng.multinomial(len(table), np.full(len(table), 1 / len(table)), size=1000)

    def of(totals: np.ndarray) -> np.ndarray:
        n, a, b, aa, bb, ab = np.moveaxis(totals, -1, 0)
        below = np.sqrt(np.maximum((n * aa - a * a) * (n * bb - b * b), 0))
        varies = below > 1e-9 * np.maximum(n * n, 1)
        return np.divide(n * ab - a * b, below, out=np.full(np.shape(n), np.nan), where=varies)

    return Estimate.of(float(of(table.sum(axis=0))), of(picks @ table), len(one), list(groups))


def _features(labeled: Labeled, first: np.ndarray | None, seed: int) -> dict[str, np.ndarray]:
    """What is probed, by name, in the order of the tables."""
    codes, size = labeled.codes, labeled.codebook_size
    rng = np.random.default_rng([seed, 5])
    found = {CODES: labeled.one_hot}
    if labeled.vectors is not None:
        found[VECTORS] = labeled.vectors.astype(np.float64)
    if first is not None:
        found[FIRST] = first
        found[BOTH] = np.concatenate([first, labeled.one_hot], axis=1)
    found[SHUFFLED] = one_hot(rng.permutation(codes), size)
    found[RANDOM] = one_hot(rng.integers(size, size=codes.shape), size)
    return found


def _scores(probed: Probed, motion: Motion, number: int) -> Scores:
    """R2 in the number-th frame of a probe whose dimensions are those of all frames, one after
    another."""
    width = motion.width
    start = number * width
    dims = tuple(probed.r2([start + d]) for d in range(width))
    return Scores(probed.r2([start + d for d in motion.translations]), dims)


def _true_codes(actions: np.ndarray, labeled: Labeled) -> np.ndarray | None:
    """Actions (N, A), standardized, cut into as many codes as labels have: one-hot; None where they are
    too few. Residual quantization, since a linear probe can undo it."""
    scaled = (actions - actions.mean(axis=0)) / np.maximum(actions.std(axis=0), 1e-9)
    try:
        config = ResidualQuantizerConfig(
            positions=labeled.codes.shape[1], codes=labeled.codebook_size
        )
        codes = config.fit(scaled).encode(scaled)
    except (UserError, ValueError):
        return None
    return one_hot(codes, labeled.codebook_size)


def _gain(scores: dict[str, Scores]) -> Estimate | None:
    return difference(scores[BOTH].mean, scores[FIRST].mean) if BOTH in scores else None


def _budget(
    features: np.ndarray, actions: np.ndarray, groups: Sequence[str], dims: Sequence[int], seed: int
) -> tuple[tuple[int, Estimate], ...]:
    """R2 of the codes by the number of labeled pairs that the probe is fitted to."""
    most = int(0.8 * len(features))
    found = []
    for count in [*(n for n in BUDGETS if n < 0.9 * most), most]:
        repeats = REPEATS if count < most else 1
        parts = [
            ridge(features, actions, groups, seed=seed + r, train_pairs=count)
            for r in range(repeats)
        ]
        mean = replace(
            parts[0],
            error=np.mean([part.error for part in parts], axis=0),
            spread=np.mean([part.spread for part in parts], axis=0),
        )
        found.append((count, mean.r2(dims)))
    return tuple(found)
