"""`invact libero compare A B...`: are the policies different? All others against the first.

    <out>/compare.json   everything that is printed, as numbers
    <out>/compare.html   the page: tables, which episodes each policy won, their videos

Policies that ran the same episodes are compared pair by pair, others as two samples, and the output
says which. Rows made under different protocols, assets or environments are refused, unless
`--across true`; every line then begins with what differs.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from invact_vla.core.files import write_json
from invact_vla.core.run_folder import open_run
from invact_vla.core.text_table import text_table
from libero_eval.report.compare_page import write_compare_page
from libero_eval.report.comparison import PolicyComparison, compare_policies, conclusion, notes
from libero_eval.report.policies import EvaluatedPolicy, read_policies
from libero_eval.report.scope import scope_line
from libero_eval.results.rows import EPISODES_FILE
from libero_eval.results.statistics import settings_differ

PAGE_FILE = "compare.html"


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Which rollouts to compare, and where the result goes."""

    POSITIONAL: ClassVar[str] = "policies"  # words without a flag

    policies: tuple[Path, ...]  # run folders; the others are compared with the first
    out: Path = Path("runs/compare")  # run folder
    across: bool = False  # compare although protocol, assets or environment differ, and say so
    level: float = 0.95  # confidence of the intervals
    seed: int = 0  # of the bootstrap
    overwrite: bool = False  # replace a run folder of another comparison

    def __post_init__(self) -> None:
        if len(self.policies) < 2:
            raise ValueError(f"policies: give at least two run folders, got {len(self.policies)}")
        if not 0 < self.level < 1:
            raise ValueError(f"level must lie in (0, 1), got {self.level}")


def main(config: CompareConfig) -> Path:
    """Compare, print, write; returns the run folder."""
    policies = read_policies(config.policies)
    results = compare_policies(policies, config.across, config.seed, config.level)
    parents = {str(number): _product(policy) for number, policy in enumerate(policies)}
    run = open_run(config.out, config, parents, config.overwrite, config.seed)
    if not run.finished:
        write_json(run.folder / "compare.json", as_json(results, config.level))
        write_compare_page(run.folder / PAGE_FILE, results)
        run.finish({result.second.name: conclusion(result) for result in results})
    scope = scope_line(policies)
    parts = [f"! {scope}"] * bool(scope) + [text(result) for result in results]
    print("\n\n".join(parts), end=f"\n{run.folder / PAGE_FILE}\n")
    return run.folder


def _product(policy: EvaluatedPolicy) -> Path:
    """What a comparison depends on: the rollout, or its episodes so far."""
    return policy.folder if policy.is_finished else policy.folder / EPISODES_FILE


def text(result: PolicyComparison) -> str:
    """One comparison for the terminal."""
    head, *rows = result.table()
    warnings = [f"! {note}" for note in notes(result)]
    return "\n".join([conclusion(result), *warnings, text_table(head, rows, (0, len(head) - 1))])


def as_json(results: Sequence[PolicyComparison], level: float) -> dict[str, Any]:
    """Everything as plain values."""
    return {
        "first": results[0].first.name,
        "first_folder": str(results[0].first.folder),
        "level": level,
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
