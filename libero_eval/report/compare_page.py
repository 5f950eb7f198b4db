"""The page of a comparison: tables, which episodes each policy won, and videos of where they differ."""

import os
from collections.abc import Sequence
from pathlib import Path

from invact_vla.html import media
from invact_vla.html.charts import cell_matrix
from invact_vla.html.page import (
    Html,
    Section,
    blocks,
    figure,
    grid,
    heading,
    join,
    page,
    paragraph,
    safe,
    table,
    tag,
)
from libero_eval.env.tasks import instruction
from libero_eval.report.comparison import PolicyComparison, conclusion, notes
from libero_eval.report.policies import EvaluatedPolicy
from libero_eval.report.run_page import GAP_PX, TILE_PX, poster
from libero_eval.results.rows import Episode, EpisodeRow
from libero_eval.rollout.command import find_video

PAIRS_SHOWN = 12  # discordant episodes with videos of both policies


def compare_page(results: Sequence[PolicyComparison], folder: Path) -> str:
    """The HTML; folder: where it will lie, videos are linked from there."""
    first = results[0].first.name
    lead = join(*(paragraph(conclusion(result), "lead") for result in results))
    if len(results) > 1:
        words = f"p values of the {len(results)} totals are corrected for their number (Holm)."
        lead = join(lead, paragraph(words, "soft"))
    sections = [_section(number, result, folder) for number, result in enumerate(results)]
    return page(f"Compared with {first}", lead, sections)


def _section(number: int, result: PolicyComparison, folder: Path) -> Section:
    parts = [
        *(paragraph(note, "soft") for note in notes(result)),
        _table(result),
        heading("Episode by episode"),
        _outcome_table(result),
        _matrix(result),
        _discordant_videos(result, folder),
    ]
    return Section(f"pair{number}", result.second.name, join(*parts))


def _table(result: PolicyComparison) -> Html:
    rows = [difference.cells() for difference in (*result.tasks, result.total)]
    caption = (
        f"{result.second.name} minus {result.first.name} in percentage points. Won and lost: "
        "episodes that only the second, only the first policy solved. Holm: p corrected for the tasks, "
        "in the last line for the policies. McNemar's exact test errs on the safe side: an interval may "
        "leave out 0 while p is above 0.05."
    )
    # the instruction, last on a terminal, stands beside its task
    lines = [[row[0], row[-1], *row[1:-1]] for row in (result.head, *rows)]
    lines[0][1] = ""
    return table(lines[0], lines[1:], caption=caption, numeric_from=2, has_total=True)


def _kinds(result: PolicyComparison) -> dict[Episode, str]:
    """Episode -> who solved it, for episodes that both policies ran."""
    a, b = result.first, result.second
    words = {
        (True, True): "both",
        (False, True): f"only {b.name}",
        (True, False): f"only {a.name}",
        (False, False): "neither",
    }
    ours = {row.episode: row.outcome == "success" for row in a.rows}
    theirs = {row.episode: row.outcome == "success" for row in b.rows}
    return {e: words[ours[e], theirs[e]] for e in sorted(ours.keys() & theirs.keys())}


def _colors(result: PolicyComparison) -> dict[str, str]:
    return {
        "both": "var(--c3)",
        f"only {result.second.name}": "var(--c2)",
        f"only {result.first.name}": "var(--c1)",
        "neither": "var(--rule)",
    }


def _outcome_table(result: PolicyComparison) -> Html:
    """The four counts that McNemar's test is made of."""
    kinds = list(_kinds(result).values())
    if not kinds:
        return paragraph("No episode was run by both policies.", "soft")
    both, won, lost, neither = (kinds.count(kind) for kind in _colors(result))
    first, second = result.first.name, result.second.name
    rows = [
        [f"{second} solved", f"{both}", f"{won}"],
        [f"{second} failed", f"{lost}", f"{neither}"],
    ]
    return table(["episodes", f"{first} solved", f"{first} failed"], rows)


def _matrix(result: PolicyComparison) -> Html:
    """A square an episode, a row a task."""
    rows: dict[str, list[str]] = {}
    for (_, task_id, _), kind in _kinds(result).items():
        rows.setdefault(str(task_id), []).append(kind)
    if not rows:
        return Html("")
    title = "Who solved which episode: a row a task, a square an init state."
    return figure(cell_matrix(list(rows.items()), _colors(result), title), title)


def _discordant_videos(result: PolicyComparison, folder: Path) -> Html:
    """Both policies side by side where one solved what the other did not."""
    theirs = {row.episode: row for row in result.second.rows}
    pairs = [
        (row, theirs[row.episode])
        for row in result.first.rows
        if row.episode in theirs and row.outcome != theirs[row.episode].outcome
    ]
    filmed = [
        (a, b)
        for a, b in pairs
        if find_video(result.first.folder, a) and find_video(result.second.folder, b)
    ]
    if not filmed:
        return paragraph(
            f"No video of both policies in any of the {len(pairs)} episodes that they ended "
            "differently (more of them: --videos.per_task of the rollouts).", "soft"
        )  # fmt: skip
    pairs_of_tiles = [
        grid([_tile(result.first, a, folder), _tile(result.second, b, folder)], TILE_PX)
        for a, b in filmed[:PAIRS_SHOWN]
    ]
    side_by_side = blocks([(tiles, 2 * (TILE_PX + GAP_PX)) for tiles in pairs_of_tiles])
    return join(heading("Where they differ"), side_by_side)


def _tile(policy: EvaluatedPolicy, row: EpisodeRow, folder: Path) -> Html:
    path = find_video(policy.folder, row)
    assert path is not None
    words = (
        f"{policy.name}, task {row.task_id}, init state {row.init_index}: {instruction(row.task)}"
    )
    href = Path(os.path.relpath(path, folder)).as_posix()
    video = media.linked_video(href, poster(path), words)
    return figure(video, Html(f"{tag(row.outcome)} {safe(words)}"), row.outcome)
