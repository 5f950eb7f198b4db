"""Rows of an evaluation: one measured number each, with its bounds, interval and size.

    <run>/results.parquet   one row per number, the columns of Row
    <run>/results.json      the same rows

A benchmark that could not run leaves one row with the reason and no number.
"""

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_args, get_origin

import numpy as np

from invact_vla.core.files import atomic_file, write_json
from invact_vla.core.text_table import text_table
from invact_vla.stats.bootstrap import percentile_interval, resample
from latent_actions.retrieval.metric import in_words

OVERALL = "all"  # encoder of rows that belong to no encoder


@dataclass(frozen=True, kw_only=True)
class Row:
    """One number of one encoder. value, low, high, chance, oracle: percent, unless the measure's
    name says another unit; None where there is none. low, high: 95 % bootstrap over clusters."""

    benchmark: str  # which benchmark
    encoder: str  # which encoder
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


@dataclass(frozen=True)
class Scorer:
    """Makes rows with the names of one benchmark and one encoder. draws: of the bootstrap."""

    benchmark: str
    encoder: str
    draws: int

    def row(
        self, measure: str, setting: str, scores: np.ndarray, clusters: Sequence[Hashable], *,
        over: np.ndarray | None = None, weights: np.ndarray | None = None, unit: float = 100.0,
        **bounds: float,
    ) -> Row:  # fmt: skip
        """The mean of scores (N,) in [0, 1] by weights (N,), or equally; or sum(scores) / sum(over).

        clusters: (N,), what the interval draws whole. unit: of the number, 100 for percent. bounds:
        chance, oracle, answerable in [0, 1]."""
        if weights is not None:
            scores, over = scores * weights, weights
        over = np.ones(len(scores)) if over is None else over
        value = unit * float(scores.sum() / over.sum())
        low, high = percentile_interval(resample(scores, over, clusters, draws=self.draws))
        scaled: Any = {name: unit * bound for name, bound in bounds.items()}
        return Row(
            benchmark=self.benchmark, encoder=self.encoder, measure=measure, setting=setting,
            value=value, low=unit * low, high=unit * high, n=len(scores), clusters=len(set(clusters)),
            **scaled,
        )  # fmt: skip

    def skip(self, reason: str, *, measure: str = "skipped", setting: str = "") -> Row:
        """What this encoder could not be measured on, with the reason in one line."""
        return Row(
            benchmark=self.benchmark, encoder=self.encoder, measure=measure, setting=setting,
            note=" ".join(reason.split()),
        )  # fmt: skip


def skipped(benchmark: str, reason: str, encoder: str = OVERALL) -> Row:
    """The row of a benchmark that could not run."""
    return Scorer(benchmark, encoder, 0).skip(reason)


def write_rows(rows: Sequence[Row], folder: Path) -> None:
    """results.parquet and results.json."""
    write_json(folder / "results.json", write_table(rows, folder / "results.parquet"))


def write_table(rows: Sequence[Any], path: Path) -> list[dict[str, Any]]:
    """Rows of one dataclass as Parquet, atomically, a column per field; returns them as JSON-able
    values."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    columns = []
    for field in fields(rows[0]):
        kind = kinds[(get_args(field.type) or (field.type,))[0]]
        columns.append((field.name, pa.list_(kind) if get_origin(field.type) is tuple else kind))
    plain = [asdict(row) for row in rows]
    with atomic_file(path) as temporary:
        pq.write_table(pa.Table.from_pylist(plain, schema=pa.schema(columns)), temporary)
    return plain


def format_rows(rows: Sequence[Row]) -> str:
    """A text table: one line per number, in the order of the rows; reasons stand last."""
    head = (
        "benchmark", "setting", "measure", "encoder", "value", "95 %", "chance", "oracle", "n", "",
    )  # fmt: skip
    return text_table(head, [_line(row) for row in rows], left=(0, 1, 2, 3, 9))


def _line(row: Row) -> tuple[str, ...]:
    names = (row.benchmark, row.setting, in_words(row.measure), row.encoder)
    if row.value is None:
        return (*names, "-", *[""] * 4, row.note)
    interval = "" if row.low is None else f"[{row.low:.1f}, {row.high:.1f}]"
    numbers = [_number(row.value), interval, _number(row.chance), _number(row.oracle)]
    return (*names, *numbers, str(row.n), row.note)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
