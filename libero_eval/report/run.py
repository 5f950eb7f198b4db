"""`invact libero report RUN...`: what a rollout showed, and how sure that is.

    <run>/report.html       the page, with videos beside it
    <run>/episodes.parquet  the rows as a table; episodes.csv the same for spreadsheets

The table is printed too. A run may still be going on; the report then says so.
"""

import csv
from collections import Counter
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import ClassVar

import numpy as np
from tqdm import tqdm

from invact_vla.core.files import atomic_file
from invact_vla.core.text_table import text_table
from invact_vla.data.video.frames import VideoError, decode_all
from invact_vla.html import media
from invact_vla.html.render import Html, write_page
from libero_eval.env.tasks import instruction
from libero_eval.report.lines import (
    caveats,
    environment,
    lines_of,
    origin,
    scope_line,
    throughput_text,
)
from libero_eval.report.policies import EvaluatedPolicy, read_policies
from libero_eval.results.rows import OUTCOMES, EpisodeRow
from libero_eval.rollout.command import find_video
from libero_eval.rollout.episode_video import FPS, HOLD_S

TEMPLATES = Path(__file__).parent / "templates"
FAILURES_SHOWN = 30  # the others are folded away
MANY = 100  # videos; from here on a bar shows how far their posters are
UNKNOWN_M = 9.0  # sorts a failure without a distance behind all others
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
    lines, scope = lines_of(policy), scope_line([policy])
    outcomes = Counter(row.outcome for row in policy.rows)
    rows = [[n.label, n.counts, n.rate_text, *n.progress[:3], n.instruction] for n in lines]
    return "\n".join(
        [
            f"{policy.name}: {lines[-1].counts}, {lines[-1].rate_text}",
            *[f"! {scope}"] * bool(scope),
            *(f"! {caveat}" for caveat in caveats(policy)),
            text_table(HEAD, rows, left=(6,)),
            "Outcomes: " + ", ".join(f"{outcomes[name]} {name}" for name in OUTCOMES) + ". "
            f"Brackets: 95 % {policy.interval_name} intervals.",
            throughput_text(policy),
            *(f"{name}: {value}" for name, value in origin(policy).items()),
        ]
    )


def write_tables(policy: EvaluatedPolicy) -> None:
    """All rows as Parquet and CSV, one column per field; `counted` says whether the rates use it."""
    import pyarrow as pa
    from pyarrow import parquet

    parts = ((policy.rows, True), (policy.left_out, False))
    rows = [{**asdict(row), "counted": counted} for part, counted in parts for row in part]
    with atomic_file(policy.folder / "episodes.parquet") as temporary:
        parquet.write_table(pa.Table.from_pylist(rows), temporary)
    with atomic_file(policy.folder / "episodes.csv") as temporary, temporary.open("w") as file:
        writer = csv.DictWriter(file, fieldnames=[*(f.name for f in fields(EpisodeRow)), "counted"])
        writer.writeheader()
        writer.writerows(rows)


# -- the page


@dataclass(frozen=True)
class Tile:
    """A video of an episode with its outcome and a caption."""

    video: Html
    outcome: str
    words: str


def write_run_page(path: Path, policy: EvaluatedPolicy, videos_per_task: int) -> Path:
    """Write the HTML of a report that lies in the run folder; its videos stay beside it."""
    failures = sorted((row for row in policy.rows if row.outcome == "failure"), key=min_distance)
    return write_page(
        path,
        "run.html.j2",
        TEMPLATES,
        title=f"Rollout of {policy.name}",
        scope=scope_line([policy]),
        lines=lines_of(policy),
        caveats=caveats(policy),
        interval_name=policy.interval_name,
        throughput=throughput_text(policy),
        groups=_videos(policy, videos_per_task),
        failures=[_failure_cells(policy, row) for row in failures],
        shown=FAILURES_SHOWN,
        errors=error_rows(policy.rows + policy.left_out),
        origin=list(origin(policy).items()),
        manifest=environment(policy.manifest),
    )


def min_distance(row: EpisodeRow) -> tuple[float, float]:
    """Sorts episodes: most goals met at once first, then the smallest distance to the unmet ones."""
    fraction = row.goals_best / row.goals_total if row.goals_total else 0.0
    return -fraction, UNKNOWN_M if row.closest_m is None else row.closest_m


def error_rows(rows: list[EpisodeRow]) -> list[list[str]]:
    """Task, init state and reason of every episode that ended as an error."""
    reason = Html("<pre>{}</pre>")
    return [
        [f"{row.task_id}", f"{row.init_index}", reason.format(row.reason.strip())]
        for row in rows
        if row.outcome == "error"
    ]


def tile(row: EpisodeRow, path: Path, href: str, words: str) -> Tile:
    """The video at `path`, linked as `href`, with its last frame as a poster."""
    return Tile(media.linked_video(href, poster(path), words), row.outcome, words)


def poster(path: Path) -> np.ndarray | None:
    """The last picture before the outcome is shown: where the episode ended."""
    try:
        frames = decode_all(path)
    except VideoError:
        return None
    return frames[max(0, len(frames) - 1 - round(FPS * HOLD_S))]


def _videos(policy: EvaluatedPolicy, videos_per_task: int) -> dict[str, list[Tile]]:
    """Task in words -> tiles: successes first, then the failures that came nearest."""
    filmed = [row for row in policy.rows + policy.left_out if find_video(policy.folder, row)]
    filmed.sort(
        key=lambda row: (row.suite, row.task_id, row.outcome != "success", *min_distance(row))
    )
    groups: dict[str, list[Tile]] = {}
    for row in tqdm(filmed, desc="posters", disable=len(filmed) < MANY):
        name = f"{row.suite} {row.task_id}: {instruction(row.task)}"
        tiles = groups.setdefault(name, [])
        path = find_video(policy.folder, row)
        if path is not None and len(tiles) < videos_per_task:
            goals = f"{row.goals_best}/{row.goals_total} goals"
            words = f"init state {row.init_index}, {row.steps} steps, {goals}"
            tiles.append(tile(row, path, path.relative_to(policy.folder).as_posix(), words))
    return {name: tiles for name, tiles in groups.items() if tiles}


def _failure_cells(policy: EvaluatedPolicy, row: EpisodeRow) -> list[str]:
    path = find_video(policy.folder, row)
    link = Html('<a href="{}">video</a>')
    return [
        f"{row.task_id}  {instruction(row.task)}",
        f"{row.init_index}",
        f"{row.goals_best}/{row.goals_total}",
        f"{row.goals_satisfied}/{row.goals_total}",
        "–" if row.closest_m is None else f"{100 * row.closest_m:.1f} cm",
        row.reason.strip().splitlines()[0] if row.reason.strip() else "–",
        link.format(path.relative_to(policy.folder).as_posix()) if path else Html(""),
    ]
