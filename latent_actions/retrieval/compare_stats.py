"""Intervals of variants and of their differences, over takes and over seeds.

A draw of the bootstrap draws whole takes with replacement, the same ones for all variants, and of each
variant as many of its seeds as it has, with replacement, independently of other variants. So the takes
cancel in a comparison and the seeds do not. Three seeds are few: their part of an interval is a
lower bound. S seeds, N queries, K takes, B draws.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from invact_vla.core.files import write_json
from invact_vla.stats.bootstrap import percentile_interval, resample
from latent_actions.retrieval.results import write_table

PRECISION = "atomic"  # benchmark of the rows with intervals


@dataclass(frozen=True, kw_only=True)
class CompareRow:
    """One number of one variant, mean over its seeds; percent unless the measure names another unit.

    low, high: 95 % bootstrap over takes and seeds, None where only the seeds' values are known.
    ratio: reference over this variant. difference: reference minus this variant."""

    variant: str
    benchmark: str  # which benchmark
    measure: str  # what was measured
    setting: str = ""  # what it was measured under
    value: float  # mean over seeds
    seeds: tuple[float, ...]  # the value of each seed
    low: float | None = None
    high: float | None = None
    chance: float | None = None  # what a random order scores
    oracle: float | None = None  # what a perfect order scores
    n: int = 0  # queries
    takes: int = 0  # independent groups of queries
    steps: int | None = None  # training steps of the variant
    parameters: int | None = None  # of the variant's encoder
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    apart: bool | None = None  # whether the two variants' own intervals do not overlap


@dataclass(frozen=True)
class Estimate:
    """Mean over seeds, percent, and its bootstrap draws (B,)."""

    value: float
    draws: np.ndarray

    @property
    def interval(self) -> tuple[float, float]:
        return percentile_interval(self.draws)


def estimates_of(
    scores: Mapping[str, np.ndarray], takes: Sequence[Hashable], draws: int, seed: int
) -> dict[str, Estimate]:
    """Means of one measure for all variants on the same draws of takes: scores (S, N) in [0, 1]."""
    found = {}
    for place, (name, values) in enumerate(scores.items()):
        each = np.ones(values.shape[1])
        means = resample(values, each, takes, draws=draws, seed=[seed, 0])
        rng = np.random.default_rng([seed, 1, place])
        picks = rng.integers(len(values), size=means.shape)
        drawn = np.take_along_axis(means, picks, axis=1).mean(axis=1)
        found[name] = Estimate(100 * float(values.mean()), 100 * drawn)
    return found


def against(reference: Estimate, variant: Estimate) -> dict[str, Any]:
    """Fields of a CompareRow: the reference against another variant, draw by draw.

    The ratio is None if the variant scores 0 in the mean or in any draw."""
    low, high = percentile_interval(reference.draws - variant.draws)
    (our_low, our_high), (their_low, their_high) = reference.interval, variant.interval
    found: dict[str, Any] = {
        "difference": reference.value - variant.value, "difference_low": low, "difference_high": high,
        "apart": our_low > their_high or their_low > our_high,
    }  # fmt: skip
    if variant.value > 0 and variant.draws.min() > 0:
        low, high = percentile_interval(reference.draws / variant.draws)
        found |= {"ratio": reference.value / variant.value, "ratio_low": low, "ratio_high": high}
    return found


def write_rows(
    rows: Sequence[CompareRow], notes: Sequence[str], reference: str, folder: Path
) -> None:
    """compare.parquet (a row per number) and compare.json (the same, with reference and notes)."""
    plain = write_table(rows, folder / "compare.parquet")
    content = {"reference": reference, "notes": list(notes), "rows": plain}
    write_json(folder / "compare.json", content)
