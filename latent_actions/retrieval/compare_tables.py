"""The tables of a comparison, once for the terminal, Markdown and the page."""

from collections.abc import Sequence
from dataclasses import dataclass

from invact_vla.core.text_table import text_table
from latent_actions.retrieval.compare_stats import PRECISION, CompareRow
from latent_actions.retrieval.directions import AVERAGES, DIRECTION_NAMES, DIRECTIONS, in_words


@dataclass(frozen=True)
class Table:
    """Text cells under heads, with a caption that says what they are."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @property
    def first_number(self) -> int:
        """The column from which on cells are numbers."""
        return 3 if self.head[0] == "benchmark" else 2 if self.head[1] == "measure" else 1


def has_headroom(rows: Sequence[CompareRow]) -> bool:
    """Whether a perfect order of these clips scores above a random one, so that P@10 says something."""
    return any((r.oracle or 0) > (r.chance or 0) + 1e-6 for r in rows if r.benchmark == PRECISION)


def tables(rows: Sequence[CompareRow], reference: str) -> list[Table]:
    """P@10 of all variants, the reference against each, the four directions (these three only where
    a perfect order is better than a random one), other measures."""
    precision = [row for row in rows if row.benchmark == PRECISION]
    found = []
    if has_headroom(rows):
        found = [_averages(precision), _against(precision, reference), _directions(precision)]
    others = [row for row in rows if row.benchmark != PRECISION]
    return [*found, _measures(others)] if others else found


def _averages(rows: Sequence[CompareRow]) -> Table:
    heads = [(DIRECTION_NAMES[name], "95 %", "seeds") for name in AVERAGES]
    body = []
    for row, other in zip(*(_of(rows, name) for name in AVERAGES), strict=True):
        cells = [cell for r in (row, other) for cell in (_two(r.value), _range(r), _seeds(r))]
        body.append((row.variant, *cells, _count(row.steps), _count(row.parameters)))
    first = rows[0]
    caption = (
        f"P@10 in percent, mean over seeds, 95 % bootstrap over takes and seeds; chance "
        f"{_two(first.chance)}, oracle {_two(first.oracle)}, {first.n} queries of {first.takes} "
        "takes, the query's scene left out"
    )
    return Table(caption, ("variant", *heads[0], *heads[1], "steps", "parameters"), tuple(body))


def _against(rows: Sequence[CompareRow], reference: str) -> Table:
    head = ("variant", "measure", "ratio", "95 %", "difference", "95 %", "intervals apart")
    body = [
        (
            row.variant, DIRECTION_NAMES[name], "-" if row.ratio is None else f"{row.ratio:.2f}x",
            _between(row.ratio_low, row.ratio_high, 2), _two(row.difference),
            _between(row.difference_low, row.difference_high), "yes" if row.apart else "no",
        )
        for name in AVERAGES
        for row in _of(rows, name)
        if row.variant != reference
    ]  # fmt: skip
    caption = (
        f"{reference} over, and minus (percentage points), each other variant; paired over takes, "
        "seeds drawn independently. Intervals apart: the two variants' own intervals of P@10 do not "
        "overlap"
    )
    return Table(caption, head, tuple(body))


def _directions(rows: Sequence[CompareRow]) -> Table:
    columns = [_of(rows, name) for name in DIRECTIONS]
    body = [
        (line[0].variant, *(f"{_two(row.value)} {_range(row)}" for row in line))
        for line in zip(*columns, strict=True)
    ]
    return Table(
        "P@10 by direction, query -> gallery",
        ("variant", *(DIRECTION_NAMES[d] for d in DIRECTIONS)),
        tuple(body),
    )


def _measures(rows: Sequence[CompareRow]) -> Table:
    """One row per measure, one column per variant."""
    variants = list(dict.fromkeys(row.variant for row in rows))
    keys = list(dict.fromkeys((row.benchmark, row.measure, row.setting) for row in rows))
    cells = {(row.benchmark, row.measure, row.setting, row.variant): row for row in rows}
    body = []
    for key in keys:
        given = [cells.get((*key, variant)) for variant in variants]
        levels = {_two(row.chance) for row in given if row is not None}
        values = ["-" if row is None else f"{_two(row.value)}{_spread(row)}" for row in given]
        body.append(
            (
                key[0],
                in_words(key[1]),
                key[2],
                levels.pop() if len(levels) == 1 else "varies",
                *values,
            )
        )
    caption = "Other measures: mean over seeds, lowest and highest seed in brackets"
    return Table(caption, ("benchmark", "measure", "setting", "chance", *variants), tuple(body))


def plain_text(shown: Sequence[Table]) -> str:
    """Tables with aligned columns."""
    return "\n\n".join(
        f"{t.caption}\n{text_table(t.head, t.rows, left=range(len(t.head)))}" for t in shown
    )


def markdown(shown: Sequence[Table]) -> str:
    """Tables in Markdown."""
    parts = []
    for table in shown:
        lines = [table.head, ("---",) * len(table.head), *table.rows]
        parts.append("\n".join([f"{table.caption}.", ""] + [f"| {' | '.join(r)} |" for r in lines]))
    return "\n\n".join(parts) + "\n"


def _of(rows: Sequence[CompareRow], measure: str) -> list[CompareRow]:
    return [row for row in rows if row.measure == measure]


def _range(row: CompareRow) -> str:
    return _between(row.low, row.high)


def _between(low: float | None, high: float | None, digits: int = 1) -> str:
    return "-" if low is None or high is None else f"[{low:.{digits}f}, {high:.{digits}f}]"


def _seeds(row: CompareRow) -> str:
    return " ".join(f"{value:.1f}" for value in row.seeds)


def _spread(row: CompareRow) -> str:
    return f" ({min(row.seeds):.1f} to {max(row.seeds):.1f})" if len(row.seeds) > 1 else ""


def _two(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"
