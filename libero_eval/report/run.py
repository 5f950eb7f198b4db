"""`invact libero report RUN...`: what a rollout showed, and how sure that is.

    <run>/report.html       the page, with videos beside it
    <run>/episodes.parquet  the rows as a table; episodes.csv the same for spreadsheets

The table is printed too. A run may still be going on; the report then says so.
"""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import ClassVar

from invact_vla.core.files import atomic_file
from invact_vla.core.text_table import text_table
from libero_eval.report.lines import Line, caveats, lines_of, origin, throughput_text
from libero_eval.report.policies import EvaluatedPolicy, read_policies
from libero_eval.report.run_page import write_run_page
from libero_eval.report.scope import scope_line
from libero_eval.results.rows import OUTCOMES, EpisodeRow

REPORT_FILE = "report.html"
HEAD = ("task", "k/n", "success [95 %]", "goals best", "at the end", "steps", "instruction")


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Which rollouts to report on."""

    POSITIONAL: ClassVar[str] = "runs"  # words without a flag

    runs: tuple[Path, ...]  # run folders of `invact libero rollout`; also without the flag
    tables: bool = True  # write episodes.parquet and episodes.csv
    videos: int = 10  # videos shown of each task, failures that came nearest first

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("runs: give at least one run folder")
        if self.videos < 0:
            raise ValueError(f"videos must not be negative, got {self.videos}")


def main(config: ReportConfig) -> list[Path]:
    """Report on every run; prints tables and the pages' paths, which it returns."""
    pages = []
    for policy in read_policies(config.runs):
        path = write_run_page(policy.folder / REPORT_FILE, policy, config.videos)
        if config.tables:
            write_tables(policy)
        print(text_report(policy), end=f"\n{path}\n\n")
        pages.append(path)
    return pages


def text_report(policy: EvaluatedPolicy) -> str:
    """The report for a terminal."""
    lines = lines_of(policy)
    outcomes = Counter(row.outcome for row in policy.rows)
    scope = scope_line([policy])
    return "\n".join(
        [
            f"{policy.name}: {lines[-1].counts}, {lines[-1].rate_text}",
            *[f"! {scope}"] * bool(scope),
            *(f"! {caveat}" for caveat in caveats(policy)),
            text_table(HEAD, [cells(line) for line in lines], left=(6,)),
            "Outcomes: " + ", ".join(f"{outcomes[name]} {name}" for name in OUTCOMES) + ". "
            f"Brackets: 95 % {policy.interval_name} intervals.",
            throughput_text(policy),
            *(f"{name}: {value}" for name, value in origin(policy).items()),
        ]
    )


def cells(line: Line) -> list[str]:
    """A line of the table, for HEAD."""
    return [line.label, line.counts, line.rate_text, *line.progress[:3], line.instruction]


def write_tables(policy: EvaluatedPolicy) -> None:
    """All rows as Parquet and CSV, one column per field; `counted` says whether the rates use it."""
    import pyarrow as pa
    from pyarrow import parquet

    rows = [{**asdict(row), "counted": True} for row in policy.rows]
    rows += [{**asdict(row), "counted": False} for row in policy.left_out]
    with atomic_file(policy.folder / "episodes.parquet") as temporary:
        parquet.write_table(pa.Table.from_pylist(rows), temporary)
    with atomic_file(policy.folder / "episodes.csv") as temporary, temporary.open("w") as file:
        writer = csv.DictWriter(file, fieldnames=column_names())
        writer.writeheader()
        writer.writerows(rows)


def column_names() -> Sequence[str]:
    """Columns of the tables."""
    return [field.name for field in fields(EpisodeRow)] + ["counted"]
