"""Are the codes used? Perplexity of every position and joint entropy, with intervals over whole
videos."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from invact_vla.stats.bootstrap import as_ids
from latent_actions.labelers.guard.codebook_usage import (
    CodebookStats,
    codebook_stats,
    entropy_nats,
    perplexity,
)
from latent_actions.report.probes import Estimate

DRAWS = 400


@dataclass(frozen=True)
class Usage:
    """How N labels use their codes. counts: int64 (K, C); entropy: bits of the K-tuples; top: fraction
    of the most frequent tuple; random_entropy: bits that uniform codes have on as many pairs, less
    than the code space where pairs are few."""

    stats: CodebookStats
    counts: np.ndarray
    perplexity: tuple[Estimate, ...]
    entropy: Estimate
    top: Estimate
    random_entropy: float


def measure_usage(codes: np.ndarray, codebook_size: int, groups: Sequence[Hashable]) -> Usage:
    """Usage of codes int (N, K), groups (N,): what is drawn whole."""
    stats, (n, positions) = codebook_stats(codes, codebook_size), codes.shape
    flat = codes + codebook_size * np.arange(positions)
    _, tuples = np.unique(codes, axis=0, return_inverse=True)
    single = _table(flat, groups, positions * codebook_size)
    joint = _table(tuples.reshape(-1, 1), groups, stats.distinct_tuples)
    shape = (positions, codebook_size)

    def each(counts: np.ndarray) -> np.ndarray:
        return perplexity(counts.reshape(*counts.shape[:-1], *shape))

    def bits(counts: np.ndarray) -> np.ndarray:
        return entropy_nats(counts) / np.log(2)

    def top(counts: np.ndarray) -> np.ndarray:
        return counts.max(axis=-1) / counts.sum(axis=-1)

    used = _bootstrapped(single, each, groups, (1.0, codebook_size))
    random = np.random.default_rng(0).integers(codebook_size, size=(n, positions))
    return Usage(
        stats=stats,
        counts=single.sum(axis=0).reshape(shape),
        perplexity=tuple(used),
        entropy=_bootstrapped(joint, bits, groups, (0.0, positions * np.log2(codebook_size)))[0],
        top=_bootstrapped(joint, top, groups, (0.0, 1.0))[0],
        random_entropy=codebook_stats(random, codebook_size).joint_entropy_bits,
    )


def _table(ids: np.ndarray, groups: Sequence[Hashable], count: int) -> np.ndarray:
    """How often each id occurs in each group: int (N, P) -> float64 (G, count)."""
    numbers = as_ids(groups)
    flat = (numbers[:, None] * count + ids).ravel()
    width = int(numbers.max() + 1)
    return np.bincount(flat, minlength=width * count).reshape(width, count).astype(float)


def _bootstrapped(
    table: np.ndarray, measure: Callable[[np.ndarray], np.ndarray], groups: Sequence[Hashable],
    bounds: tuple[float, float],
) -> list[Estimate]:  # fmt: skip
    """What `measure` gives for the sum of a table (G, U), with intervals of whole groups drawn.

    A draw holds fewer different groups than there are, so its entropy is too low: the draws are
    moved so that their mean is the value, and cut at the bounds.
    """
    rng = np.random.default_rng(0)
    picks = rng.multinomial(len(table), np.full(len(table), 1 / len(table)), size=DRAWS)
    value = np.atleast_1d(measure(table.sum(axis=0)))
    draws = np.asarray(measure(picks @ table)).reshape(DRAWS, -1)
    moved = np.clip(draws + value - draws.mean(axis=0), *bounds)
    n = len(groups)
    return [Estimate.of(float(v), moved[:, i], n, groups) for i, v in enumerate(value)]
