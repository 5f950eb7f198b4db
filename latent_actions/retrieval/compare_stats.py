"""Intervals of variants and of their differences, over takes and over seeds.

A draw of the bootstrap draws whole takes with replacement, the same ones for all variants, and of each
variant as many of its seeds as it has, with replacement, independently of other variants. So the takes
cancel in a comparison and the seeds do not. Three seeds are few: their part of an interval is a
lower bound. S seeds, N queries, K takes, B draws.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from invact_vla.core.files import atomic_file, write_json
from latent_actions.retrieval.metric import as_ids

PRECISION = "atomic"  # benchmark of the rows with intervals


@dataclass(frozen=True, kw_only=True)
class CompareRow:
    """One number of one variant, mean over its seeds; percent unless the measure names another unit.

    low, high: 95 % bootstrap over takes and seeds, None where only the seeds' values are known.
    ratio: reference over this variant. difference: reference minus this variant.
    """

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
        return interval(self.draws)


def interval(draws: np.ndarray) -> tuple[float, float]:
    """95 % percentile interval of bootstrap draws (B,)."""
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def take_counts(takes: Sequence[Hashable], draws: int, seed: int) -> np.ndarray:
    """How often each take is in each draw: float (B, K), rows sum to K."""
    ids = as_ids(takes)
    count = int(ids.max()) + 1
    picks = np.random.default_rng([seed, 0]).integers(count, size=(draws, count))
    found = np.zeros((draws, count))
    np.add.at(found, (np.arange(draws)[:, None], picks), 1)
    return found


def estimate(
    scores: np.ndarray, takes: Sequence[Hashable], counts: np.ndarray, rng: np.random.Generator
) -> Estimate:
    """Mean of a variant: scores (S, N) in [0, 1], takes (N,), counts of `take_counts` (B, K)."""
    ids, (seeds, _) = as_ids(takes), scores.shape
    sums = np.stack([np.bincount(ids, weights=row) for row in scores], axis=1)
    means = (counts @ sums) / (counts @ np.bincount(ids))[:, None]  # (B, S)
    picks = rng.integers(seeds, size=(len(counts), seeds))
    drawn = np.take_along_axis(means, picks, axis=1).mean(axis=1)
    return Estimate(100 * float(scores.mean()), 100 * drawn)


def against(reference: Estimate, variant: Estimate) -> dict[str, Any]:
    """Fields of a CompareRow: the reference against another variant, draw by draw.

    The ratio is None if the variant scores 0 in the mean or in any draw.
    """
    low, high = interval(reference.draws - variant.draws)
    (our_low, our_high), (their_low, their_high) = reference.interval, variant.interval
    found: dict[str, Any] = {
        "difference": reference.value - variant.value, "difference_low": low, "difference_high": high,
        "apart": our_low > their_high or their_low > our_high,
    }  # fmt: skip
    if variant.value > 0 and variant.draws.min() > 0:
        low, high = interval(reference.draws / variant.draws)
        found |= {"ratio": reference.value / variant.value, "ratio_low": low, "ratio_high": high}
    return found


def estimates_of(
    scores: Mapping[str, np.ndarray], takes: Sequence[Hashable], draws: int, seed: int
) -> dict[str, Estimate]:
    """Estimates of one measure for all variants on the same draws of takes; scores are (S, N)."""
    counts = take_counts(takes, draws, seed)
    return {
        name: estimate(values, takes, counts, np.random.default_rng([seed, 1, place]))
        for place, (name, values) in enumerate(scores.items())
    }


def write_rows(
    rows: Sequence[CompareRow], notes: Sequence[str], reference: str, folder: Path
) -> None:
    """compare.parquet (a row a number) and compare.json (the same, with reference and notes)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    plain = [{**asdict(row), "seeds": list(row.seeds)} for row in rows]
    texts = {"variant", "benchmark", "measure", "setting"}
    whole = {"n", "takes", "steps", "parameters"}
    kinds = {name: pa.string() for name in texts} | {name: pa.int64() for name in whole}
    kinds |= {"seeds": pa.list_(pa.float64()), "apart": pa.bool_()}
    schema = pa.schema([(name, kinds.get(name, pa.float64())) for name in plain[0]])
    with atomic_file(folder / "compare.parquet") as temporary:
        pq.write_table(pa.Table.from_pylist(plain, schema=schema), temporary)
    write_json(
        folder / "compare.json", {"reference": reference, "notes": list(notes), "rows": plain}
    )
