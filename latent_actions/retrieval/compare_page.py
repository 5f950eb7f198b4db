"""The page of a comparison: bars with intervals and seeds, the tables, the committed patches."""

from collections.abc import Sequence
from pathlib import Path

from invact_vla.html import media
from invact_vla.html.charts import Bar, bars_with_points
from invact_vla.html.page import Html, Section, figure, join, page, paragraph, table
from latent_actions.retrieval.compare_stats import PRECISION, CompareRow
from latent_actions.retrieval.compare_tables import LABELS, Table
from latent_actions.retrieval.directions import AVERAGES


def compare_page(
    rows: Sequence[CompareRow],
    reference: str,
    shown: Sequence[Table],
    notes: Sequence[str],
    picture: Path,
) -> str:
    """The document. shown: tables of `tables`; picture: the reference's committed.png, which may be
    absent.
    """
    warnings = join(*(paragraph(note, "warn") for note in notes))
    sections = [
        Section("precision", "Precision at 10", join(*(_chart(rows, name) for name in AVERAGES))),
        Section("against", f"{reference} against the others", _table(shown[1])),
        Section("tables", "All numbers", join(*(_table(t) for t in (shown[0], *shown[2:])))),
    ]
    if picture.exists():
        image = figure(
            media.picture(picture, "clips over their committed patches"),
            f"Validation clips of the first run of {reference}, the patches of the action token in "
            "orange, those of registers in other colors.",
        )
        sections.append(Section("committed", "What the action token holds", image))
    return page("Encoders compared", join(_lead(rows, reference), warnings), sections)


def _lead(rows: Sequence[CompareRow], reference: str) -> Html:
    """One sentence with the counts."""
    others = [row for row in rows if row.variant != reference and row.apart is not None]
    parts = []
    for name in AVERAGES:
        own = next(row for row in rows if row.measure == name and row.variant == reference)
        against = [row for row in others if row.measure == name]
        better = sum(bool(row.apart) and own.value > row.value for row in against)
        parts.append(
            f"{LABELS[name]} {own.value:.1f} % [{own.low:.1f}, {own.high:.1f}], above {better} of "
            f"{len(against)} other variants with intervals apart"
        )
    return paragraph(f"{reference}: {'; '.join(parts)}.", "lead")


def _chart(rows: Sequence[CompareRow], measure: str) -> Html:
    own = [row for row in rows if row.benchmark == PRECISION and row.measure == measure]
    bars = [
        Bar(row.variant, row.value, row.low or 0.0, row.high or 0.0, tuple(row.seeds))
        for row in own
    ]
    chance = own[0].chance or 0.0
    caption = (
        f"{LABELS[measure].capitalize()} P@10 in percent. Whiskers: 95 % over takes and seeds; "
        f"dots: seeds; dashed: chance {chance:.2f}. {own[0].n} queries, oracle {own[0].oracle:.2f}."
    )
    return figure(bars_with_points(bars, chance, f"{LABELS[measure]} P@10 by variant"), caption)


def _table(shown: Table) -> Html:
    first_number = 3 if shown.head[0] == "benchmark" else 2 if shown.head[1] == "measure" else 1
    return table(shown.head, shown.rows, caption=shown.caption, numeric_from=first_number)
