"""The page of a comparison: tables, which episodes each policy won, and videos of where they differ."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from invact_vla.html.render import write_page
from libero_eval.env.tasks import instruction
from libero_eval.report.comparison import PolicyComparison, conclusion, notes
from libero_eval.report.policies import EvaluatedPolicy
from libero_eval.report.run_page import TEMPLATES, Tile, tile
from libero_eval.report.scope import scope_line
from libero_eval.results.rows import Episode, EpisodeRow
from libero_eval.rollout.command import find_video

PAIRS_SHOWN = 12  # discordant episodes with videos of both policies


def write_compare_page(path: Path, results: Sequence[PolicyComparison]) -> Path:
    """Write the HTML; videos are linked from where it lies."""
    first = results[0].first
    return write_page(
        path,
        "compare.html.j2",
        TEMPLATES,
        title=f"Compared with {first.name}",
        scope=scope_line([first, *(result.second for result in results)]),
        results=[_view(result, path.parent) for result in results],
    )


def _view(result: PolicyComparison, folder: Path) -> dict[str, Any]:
    """What the template shows of one comparison."""
    kinds, theirs = _kinds(result), {row.episode: row for row in result.second.rows}
    matrix: dict[str, list[str]] = {}
    for (_, task_id, _), kind in kinds.items():
        matrix.setdefault(str(task_id), []).append(kind)
    differing = [
        (row, theirs[row.episode])
        for row in result.first.rows
        if row.episode in theirs and row.outcome != theirs[row.episode].outcome
    ]
    pairs = [
        [_tile(result.first, first, folder), _tile(result.second, second, folder)]
        for first, second in differing
        if find_video(result.first.folder, first) and find_video(result.second.folder, second)
    ]
    colors = dict(zip(_names(result), ("--c3", "--c2", "--c1", "--rule"), strict=True))
    return {
        "first": result.first.name,
        "second": result.second.name,
        "is_decidable": result.is_decidable,
        "conclusion": conclusion(result),
        "notes": notes(result),
        "table": [[row[0], row[-1], *row[1:-1]] for row in result.table()],
        "counts": [list(kinds.values()).count(kind) for kind in colors],
        "matrix": list(matrix.items()),
        "colors": {kind: f"var({color})" for kind, color in colors.items()},
        "differing": len(differing),
        "pairs": pairs[:PAIRS_SHOWN],
    }


def _names(result: PolicyComparison) -> tuple[str, str, str, str]:
    """Who solved an episode, in words: both, second, first, neither."""
    return "both", f"only {result.second.name}", f"only {result.first.name}", "neither"


def _kinds(result: PolicyComparison) -> dict[Episode, str]:
    """Episode -> who solved it, for episodes that both policies ran."""
    both, second, first, neither = _names(result)
    words = {(True, True): both, (False, True): second, (True, False): first}
    ours = {row.episode: row.outcome == "success" for row in result.first.rows}
    theirs = {row.episode: row.outcome == "success" for row in result.second.rows}
    shared = sorted(ours.keys() & theirs.keys())
    return {e: words.get((ours[e], theirs[e]), neither) for e in shared}


def _tile(policy: EvaluatedPolicy, row: EpisodeRow, folder: Path) -> Tile:
    path = find_video(policy.folder, row)
    assert path is not None
    words = (
        f"{policy.name}, task {row.task_id}, init state {row.init_index}: {instruction(row.task)}"
    )
    return tile(row, path, Path(os.path.relpath(path, folder)).as_posix(), words)
