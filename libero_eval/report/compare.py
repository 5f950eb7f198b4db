"""`invact libero compare A B...`: are the policies different? All others against the first.

    <out>/compare.json   everything that is printed, as numbers
    <out>/compare.html   the page: tables, which episodes each policy won, their videos

Policies that ran the same episodes are compared pair by pair, others as two samples, and the output
says which. Rows made under different protocols, assets or environments are refused, unless
`--across true`; every line then begins with what differs.
"""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from invact_vla.core.files import write_json
from invact_vla.core.run_folder import open_run
from invact_vla.core.text_table import text_table
from invact_vla.html.render import write_page
from libero_eval.env.tasks import instruction
from libero_eval.report.comparison import PolicyComparison, compare_policies, conclusion, notes
from libero_eval.report.lines import scope_line
from libero_eval.report.policies import EvaluatedPolicy, read_policies
from libero_eval.report.run import TEMPLATES, Tile, tile
from libero_eval.results.rows import EPISODES_FILE, EpisodeRow
from libero_eval.results.statistics import LEVEL, settings_differ
from libero_eval.rollout.command import find_video

PAGE_FILE = "compare.html"
PAIRS_SHOWN = 12  # discordant episodes with videos of both policies


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Which rollouts to compare, and where the result goes."""

    POSITIONAL: ClassVar[str] = "policies"  # words without a flag

    policies: tuple[Path, ...]  # run folders; the others are compared with the first
    out: Path = Path("runs/compare")  # run folder
    across: bool = False  # compare although protocol, assets or environment differ, and say so
    seed: int = 0  # of the bootstrap
    overwrite: bool = False  # replace a run folder of another comparison

    def __post_init__(self) -> None:
        if len(self.policies) < 2:
            raise ValueError(f"policies: give at least two run folders, got {len(self.policies)}")


def main(config: CompareConfig) -> Path:
    """Compare, print, write; returns the run folder."""
    policies = read_policies(config.policies)
    results = compare_policies(policies, config.across, config.seed)
    parents = {  # the rollout, or its episodes so far
        str(number): policy.folder if policy.is_finished else policy.folder / EPISODES_FILE
        for number, policy in enumerate(policies)
    }
    run = open_run(config.out, config, parents, config.overwrite, config.seed)
    if not run.finished:
        write_json(run.folder / "compare.json", as_json(results))
        write_compare_page(run.folder / PAGE_FILE, results)
        run.finish({result.second.name: conclusion(result) for result in results})
    scope = scope_line(policies)
    parts = [f"! {scope}"] * bool(scope) + [text(result) for result in results]
    print("\n\n".join(parts), end=f"\n{run.folder / PAGE_FILE}\n")
    return run.folder


def text(result: PolicyComparison) -> str:
    """One comparison for the terminal."""
    head, *rows = result.table()
    warnings = [f"! {note}" for note in notes(result)]
    return "\n".join([conclusion(result), *warnings, text_table(head, rows, (0, len(head) - 1))])


def as_json(results: Sequence[PolicyComparison]) -> dict[str, Any]:
    """Everything as plain values."""
    return {
        "first": results[0].first.name,
        "first_folder": str(results[0].first.folder),
        "level": LEVEL,
        "comparisons": [
            {
                "second": result.second.name,
                "second_folder": str(result.second.folder),
                "conclusion": conclusion(result),
                "notes": notes(result),
                "settings_differ": settings_differ(result.first.rows, result.second.rows),
                "total": asdict(result.total),
                "tasks": [asdict(task) for task in result.tasks],
            }
            for result in results
        ],
    }


# -- the page


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
    # who solved an episode, in words, for episodes that both policies ran
    names = "both", f"only {result.second.name}", f"only {result.first.name}", "neither"
    solved = dict(zip([(1, 1), (0, 1), (1, 0), (0, 0)], names, strict=True))
    theirs = {row.episode: row for row in result.second.rows}
    shared = [(row, theirs[row.episode]) for row in result.first.rows if row.episode in theirs]
    shared.sort(key=lambda pair: pair[0].episode)
    kinds = [solved[a.outcome == "success", b.outcome == "success"] for a, b in shared]
    matrix: dict[str, list[str]] = {}
    for (row, _), kind in zip(shared, kinds, strict=True):
        matrix.setdefault(str(row.task_id), []).append(kind)
    differing = [pair for pair in shared if pair[0].outcome != pair[1].outcome]
    pairs = [
        [_tile(result.first, first, folder), _tile(result.second, second, folder)]
        for first, second in differing
        if find_video(result.first.folder, first) and find_video(result.second.folder, second)
    ]
    colors = dict(zip(names, ("--c3", "--c2", "--c1", "--rule"), strict=True))
    return {
        "first": result.first.name,
        "second": result.second.name,
        "is_decidable": result.is_decidable,
        "conclusion": conclusion(result),
        "notes": notes(result),
        "table": [[row[0], row[-1], *row[1:-1]] for row in result.table()],
        "counts": [kinds.count(kind) for kind in colors],
        "matrix": list(matrix.items()),
        "colors": {kind: f"var({color})" for kind, color in colors.items()},
        "differing": len(differing),
        "pairs": pairs[:PAIRS_SHOWN],
    }


def _tile(policy: EvaluatedPolicy, row: EpisodeRow, folder: Path) -> Tile:
    path = find_video(policy.folder, row)
    assert path is not None
    words = (
        f"{policy.name}, task {row.task_id}, init state {row.init_index}: {instruction(row.task)}"
    )
    return tile(row, path, Path(os.path.relpath(path, folder)).as_posix(), words)
