"""The page of a comparison: intervals with seeds, the tables, the committed patches."""

from collections.abc import Sequence
from pathlib import Path

from invact_vla.html import media
from invact_vla.html.charts import Interval, interval_chart
from invact_vla.html.render import Html, write_page
from latent_actions.retrieval.compare_stats import PRECISION, CompareRow
from latent_actions.retrieval.compare_tables import Table, has_headroom
from latent_actions.retrieval.directions import AVERAGES, DIRECTION_NAMES

TEMPLATES = Path(__file__).parent / "templates"


def write_compare_page(
    path: Path,
    rows: Sequence[CompareRow],
    reference: str,
    shown: Sequence[Table],
    notes: Sequence[str],
    picture: Path,
) -> Path:
    """Write the document. shown: tables of `tables`; picture: the reference's committed.png, which may
    be absent.
    """
    decidable = has_headroom(rows)
    return write_page(
        path,
        "encoders.html.j2",
        TEMPLATES,
        title="Encoders compared",
        scope="",
        reference=reference,
        apart=[_apart(rows, reference, name) for name in AVERAGES] if decidable else [],
        notes=notes,
        charts=[_chart(rows, name) for name in AVERAGES] if decidable else [],
        tables=shown,
        picture=media.picture(picture, "clips over committed patches") if picture.exists() else "",
    )


def _apart(rows: Sequence[CompareRow], reference: str, measure: str) -> str:
    """The reference's P@10, and above how many others it stands."""
    row_of = {row.variant: row for row in rows if row.measure == measure}
    own = row_of.pop(reference)
    against = [row for row in row_of.values() if row.apart is not None]
    better = sum(bool(row.apart) and own.value > row.value for row in against)
    return (
        f"{DIRECTION_NAMES[measure]} {own.value:.1f} % [{own.low:.1f}, {own.high:.1f}], above "
        f"{better} of {len(against)} other variants with intervals apart"
    )


def _chart(rows: Sequence[CompareRow], measure: str) -> tuple[Html, str]:
    """The chart of a measure and its caption."""
    own = [row for row in rows if row.benchmark == PRECISION and row.measure == measure]
    intervals = [
        Interval(r.variant, r.value, r.low or 0, r.high or 0, f"{r.value:.1f}", tuple(r.seeds))
        for r in own
    ]
    name, first = f"{DIRECTION_NAMES[measure].capitalize()} P@10", own[0]
    chance = first.chance or 0.0
    chart = interval_chart(
        intervals, f"{name} by variant", f"{name} (%)", "mean, 95 % over takes and seeds",
        reference=chance, reference_name=f"chance {chance:.2f}",
    )  # fmt: skip
    return chart, f"{name} in percent. {first.n} queries, oracle {first.oracle:.2f}."
