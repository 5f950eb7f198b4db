"""What a comparison shows: its tables, for the terminal, Markdown and the page; and the page, with
intervals, seeds and the committed patches."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from invact_vla.core.text_table import text_table
from invact_vla.html import media
from invact_vla.html.charts import Interval, interval_chart
from invact_vla.html.render import Html, write_page
from latent_actions.retrieval.compare_stats import PRECISION, CompareRow
from latent_actions.retrieval.metric import AVERAGES, DIRECTION_NAMES, DIRECTIONS, in_words

TEMPLATES = Path(__file__).parent / "templates"


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
    heads = [cell for name in AVERAGES for cell in (DIRECTION_NAMES[name], "95 %", "seeds")]
    body = []
    for own in zip(*(_of(rows, name) for name in AVERAGES), strict=True):
        cells = [cell for r in own for cell in (_two(r.value), _range(r.low, r.high), _seeds(r))]
        body.append((own[0].variant, *cells, _count(own[0].steps), _count(own[0].parameters)))
    first = rows[0]
    caption = (
        f"P@10 in percent, mean over seeds, 95 % bootstrap over takes and seeds; chance "
        f"{_two(first.chance)}, oracle {_two(first.oracle)}, {first.n} queries of {first.takes} "
        "takes, the query's scene left out"
    )
    return Table(caption, ("variant", *heads, "steps", "parameters"), tuple(body))


def _against(rows: Sequence[CompareRow], reference: str) -> Table:
    head = ("variant", "measure", "ratio", "95 %", "difference", "95 %", "intervals apart")
    body = [
        (
            row.variant, DIRECTION_NAMES[name], "-" if row.ratio is None else f"{row.ratio:.2f}x",
            _range(row.ratio_low, row.ratio_high, 2), _two(row.difference),
            _range(row.difference_low, row.difference_high), "yes" if row.apart else "no",
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
    lines = zip(*(_of(rows, name) for name in DIRECTIONS), strict=True)
    body = [
        (own[0].variant, *(f"{_two(r.value)} {_range(r.low, r.high)}" for r in own))
        for own in lines
    ]
    head = ("variant", *(DIRECTION_NAMES[d] for d in DIRECTIONS))
    return Table("P@10 by direction, query -> gallery", head, tuple(body))


def _measures(rows: Sequence[CompareRow]) -> Table:
    """One row per measure, one column per variant."""
    variants = list(dict.fromkeys(row.variant for row in rows))
    cells: dict[tuple[str, str, str], dict[str, CompareRow]] = {}
    for row in rows:
        cells.setdefault((row.benchmark, row.measure, row.setting), {})[row.variant] = row
    body = []
    for (benchmark, measure, setting), own in cells.items():
        levels = {_two(row.chance) for row in own.values()}
        chance = levels.pop() if len(levels) == 1 else "varies"
        shown = {name: f"{_two(row.value)}{_spread(row)}" for name, row in own.items()}
        values = [shown.get(name, "-") for name in variants]
        body.append((benchmark, in_words(measure), setting, chance, *values))
    caption = "Other measures: mean over seeds, lowest and highest seed in brackets"
    return Table(caption, ("benchmark", "measure", "setting", "chance", *variants), tuple(body))


def plain_text(shown: Sequence[Table]) -> str:
    """Tables with aligned columns."""
    aligned = (text_table(t.head, t.rows, left=range(len(t.head))) for t in shown)
    return "\n\n".join(f"{t.caption}\n{text}" for t, text in zip(shown, aligned, strict=True))


def markdown(shown: Sequence[Table]) -> str:
    """Tables in Markdown."""
    parts = []
    for table in shown:
        lines = [table.head, ("---",) * len(table.head), *table.rows]
        parts.append("\n".join([f"{table.caption}.", ""] + [f"| {' | '.join(r)} |" for r in lines]))
    return "\n\n".join(parts) + "\n"


def _of(rows: Sequence[CompareRow], measure: str) -> list[CompareRow]:
    return [row for row in rows if row.measure == measure]


def _range(low: float | None, high: float | None, digits: int = 1) -> str:
    return "-" if low is None or high is None else f"[{low:.{digits}f}, {high:.{digits}f}]"


def _seeds(row: CompareRow) -> str:
    return " ".join(f"{value:.1f}" for value in row.seeds)


def _spread(row: CompareRow) -> str:
    return f" ({min(row.seeds):.1f} to {max(row.seeds):.1f})" if len(row.seeds) > 1 else ""


def _two(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def write_compare_page(
    path: Path,
    rows: Sequence[CompareRow],
    reference: str,
    shown: Sequence[Table],
    notes: Sequence[str],
    picture: Path,
) -> Path:
    """Write the document. shown: tables of `tables`; picture: the reference's committed.png, which may
    be absent."""
    averages = AVERAGES if has_headroom(rows) else {}
    return write_page(
        path,
        "encoders.html.j2",
        TEMPLATES,
        title="Encoders compared",
        scope="",
        reference=reference,
        apart=[_apart(_of(rows, name), reference, name) for name in averages],
        notes=notes,
        charts=[_chart(_of(rows, name), name) for name in averages],
        tables=shown,
        picture=media.picture(picture, "clips over committed patches") if picture.exists() else "",
    )


def _apart(rows: Sequence[CompareRow], reference: str, measure: str) -> str:
    """The reference's P@10, and above how many others it stands."""
    own = next(row for row in rows if row.variant == reference)
    against = [row for row in rows if row is not own and row.apart is not None]
    better = sum(bool(row.apart) and own.value > row.value for row in against)
    return (
        f"{DIRECTION_NAMES[measure]} {own.value:.1f} % [{own.low:.1f}, {own.high:.1f}], above "
        f"{better} of {len(against)} other variants with intervals apart"
    )


def _chart(rows: Sequence[CompareRow], measure: str) -> tuple[Html, str]:
    """The chart of a measure and its caption."""
    intervals = [
        Interval(r.variant, r.value, r.low or 0, r.high or 0, f"{r.value:.1f}", tuple(r.seeds))
        for r in rows
    ]
    name, first = f"{DIRECTION_NAMES[measure].capitalize()} P@10", rows[0]
    chance = first.chance or 0.0
    chart = interval_chart(
        intervals, f"{name} by variant", f"{name} (%)", "mean, 95 % over takes and seeds",
        reference=chance, reference_name=f"chance {chance:.2f}",
    )  # fmt: skip
    return chart, f"{name} in percent. {first.n} queries, oracle {first.oracle:.2f}."
