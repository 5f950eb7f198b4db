"""Rows of an evaluation: one measured number each, with its levels, interval and size.

    <run>/results.parquet   one row a number, the columns of Row
    <run>/results.json      the same rows

A benchmark that could not run leaves one row with the reason and no number.
"""

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from invact_vla.core.files import atomic_file, write_json
from invact_vla.core.text_table import text_table
from latent_actions.retrieval.metric import as_ids

OVERALL = "all"  # subject of rows that belong to no encoder


@dataclass(frozen=True, kw_only=True)
class Row:
    """One number of one encoder. value, low, high, chance, oracle: percent, unless the measure's
    name says another unit; None where there is none. low, high: 95 % bootstrap over clusters.
    """

    benchmark: str  # which benchmark
    subject: str  # which encoder
    measure: str  # what was measured
    setting: str = ""  # scene key, composition, label level: what the measure was taken under
    value: float | None = None  # the number
    low: float | None = None  # lower end of the interval
    high: float | None = None  # upper end of the interval
    chance: float | None = None  # what a random order, or the most frequent class, scores
    oracle: float | None = None  # what a perfect order scores
    answerable: float | None = None  # queries with at least one positive
    n: int = 0  # queries
    clusters: int = 0  # independent groups of queries: takes, or moments
    note: str = ""  # why there is no number, or what it leaves out


def measured(
    scores: np.ndarray,
    clusters: Sequence[Hashable],
    *,
    draws: int,
    benchmark: str,
    subject: str,
    measure: str,
    setting: str = "",
    chance: float | None = None,
    oracle: float | None = None,
    answerable: float | None = None,
    weights: np.ndarray | None = None,
) -> Row:
    """The row of a mean over queries: scores (N,) in [0, 1], clusters (N,), weights (N,) or equal.

    chance, oracle, answerable: in [0, 1].
    """
    weights = np.ones(len(scores)) if weights is None else np.asarray(weights, float)
    low, high = ratio_interval(scores * weights, weights, clusters, draws=draws)
    return Row(
        benchmark=benchmark, subject=subject, measure=measure, setting=setting,
        value=100 * float((scores * weights).sum() / weights.sum()), low=100 * low, high=100 * high,
        chance=_percent(chance), oracle=_percent(oracle), answerable=_percent(answerable),
        n=len(scores), clusters=len(set(clusters)),
    )  # fmt: skip


def _percent(level: float | None) -> float | None:
    return None if level is None else 100 * level


def ratio_interval(
    above: np.ndarray,
    below: np.ndarray,
    clusters: Sequence[Hashable],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % percentile interval of sum(above) / sum(below), whole clusters drawn with replacement.

    above, below: (N,); below of all ones gives the interval of a mean.
    """
    ids = as_ids(clusters)
    sums, sizes = np.bincount(ids, weights=above), np.bincount(ids, weights=below)
    picks = np.random.default_rng(seed).integers(len(sums), size=(draws, len(sums)))
    bottom = sizes[picks].sum(axis=1)
    values = sums[picks].sum(axis=1)[bottom > 0] / bottom[bottom > 0]
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def skipped(
    benchmark: str,
    reason: str,
    subject: str = OVERALL,
    *,
    measure: str = "skipped",
    setting: str = "",
) -> Row:
    """The row of what could not be measured, with the reason in one line."""
    note = " ".join(reason.split())
    return Row(benchmark=benchmark, subject=subject, measure=measure, setting=setting, note=note)


def write_rows(rows: Sequence[Row], folder: Path) -> None:
    """results.parquet and results.json."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"int": pa.int64(), "str": pa.string(), "float | None": pa.float64()}
    schema = pa.schema([(f.name, kinds[_type_name(f.type)]) for f in fields(Row)])
    table = pa.Table.from_pylist([asdict(row) for row in rows], schema=schema)
    with atomic_file(folder / "results.parquet") as temporary:
        pq.write_table(table, temporary)
    write_json(folder / "results.json", [asdict(row) for row in rows])


def format_rows(rows: Sequence[Row]) -> str:
    """A text table: one line per number, in the order of the rows; reasons stand last."""
    head = (
        "benchmark",
        "setting",
        "measure",
        "encoder",
        "value",
        "95 %",
        "chance",
        "oracle",
        "n",
        "",
    )
    return text_table(head, [_line(row) for row in rows], left=(0, 1, 2, 3, 9))


def _line(row: Row) -> tuple[str, ...]:
    interval = "" if row.low is None else f"[{row.low:.1f}, {row.high:.1f}]"
    numbers = [_number(row.value), interval, _number(row.chance), _number(row.oracle), str(row.n)]
    if row.value is None:
        numbers = ["-", *[""] * 4]
    return (row.benchmark, row.setting, row.measure, row.subject, *numbers, row.note)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _type_name(kind: object) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind)
