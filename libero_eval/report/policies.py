"""A rollout's run folder, read back for a report or a comparison."""

import operator
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Any, cast

from invact_vla.core.errors import UserError
from invact_vla.core.files import read_json
from invact_vla.stats.rates import Interval, rate_sequence, wilson
from libero_eval.results.rows import EPISODES_FILE, EpisodeRow, read_episodes
from libero_eval.rollout.early_stop import STOP_FILE, Verdict


@dataclass(frozen=True, kw_only=True)
class EvaluatedPolicy:
    """One rollout."""

    name: str
    folder: Path
    rows: list[EpisodeRow]  # what the rates are made of
    left_out: list[EpisodeRow]  # beyond the last whole round of a run that stopped early
    is_finished: bool
    seconds: float | None  # wall clock of a finished run
    manifest: dict[str, Any]  # {} where there is none
    verdict: Verdict | None

    @property
    def interval(self) -> Interval:
        """Wilson for a length fixed beforehand, the confidence sequence for a rule that may stop."""
        return wilson if self.verdict is None else rate_sequence

    @property
    def interval_name(self) -> str:
        return "Wilson" if self.verdict is None else "confidence sequence"


def read_policy(folder: Path) -> EvaluatedPolicy:
    """Read a run folder. UserError if it is no rollout, has no episodes or several policies."""
    folder = Path(folder).parent if Path(folder).name == EPISODES_FILE else Path(folder)
    rows = read_episodes(folder)
    names = sorted({row.policy_name for row in rows})
    if len(names) != 1:
        several = f"episodes of several policies, {', '.join(names)}"
        what = several if names else "no episode yet"
        raise UserError(f"{folder} holds {what}: expected one finished or running rollout")
    done = _optional_json(folder / "done.json")
    verdict = cast(Verdict | None, _optional_json(folder / STOP_FILE))
    counted = None if verdict is None else {(task, init) for task, init in verdict["counted"]}
    is_counted = [counted is None or (row.task_id, row.init_index) in counted for row in rows]
    return EvaluatedPolicy(
        name=names[0],
        folder=folder,
        rows=list(compress(rows, is_counted)),
        left_out=list(compress(rows, map(operator.not_, is_counted))),
        is_finished=done is not None,
        seconds=None if done is None else done.get("seconds"),
        manifest=_optional_json(folder / "manifest.json") or {},
        verdict=verdict,
    )


def read_policies(folders: Sequence[Path]) -> list[EvaluatedPolicy]:
    """Read run folders; policies of equal name are distinguished by their folders."""
    policies = [read_policy(folder) for folder in folders]
    counts = Counter(policy.name for policy in policies)
    renamed = [
        p if counts[p.name] == 1 else replace(p, name=f"{p.name} ({p.folder})") for p in policies
    ]
    if len({policy.name for policy in renamed}) < len(renamed):
        raise UserError(f"a run folder is given twice: {', '.join(map(str, folders))}")
    return renamed


def _optional_json(path: Path) -> Any:
    return read_json(path) if path.exists() else None
