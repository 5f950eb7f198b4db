"""A rollout's run folder, read back for a report or a comparison."""

import operator
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Any, cast

from invact_vla.errors import UserError
from invact_vla.training.files import read_json
from libero_eval.early_stop import STOP_FILE, Verdict
from libero_eval.results import EpisodeRow, read_episodes
from libero_eval.stats import Interval, rate_sequence, wilson


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One rollout.

    rows: what the rates are made of; left_out: episodes beyond the last whole round of a run that
    stopped early. seconds: wall clock of a finished run. manifest: {} where there is none.
    """

    name: str
    folder: Path
    rows: list[EpisodeRow]
    left_out: list[EpisodeRow]
    is_finished: bool
    seconds: float | None
    manifest: dict[str, Any]
    verdict: Verdict | None

    @property
    def interval(self) -> Interval:
        """Wilson for a length fixed beforehand, the confidence sequence for a rule that may stop."""
        return wilson if self.verdict is None else rate_sequence

    @property
    def interval_name(self) -> str:
        return "Wilson" if self.verdict is None else "confidence sequence"


def read_arm(folder: Path) -> Arm:
    """Read a run folder. UserError if it is no rollout, has no episodes or several arms."""
    folder = Path(folder)
    rows = read_episodes(folder)
    names = sorted({row.arm for row in rows})
    if len(names) != 1:
        what = "no episode yet" if not names else f"episodes of several arms, {', '.join(names)}"
        raise UserError(f"{folder} holds {what}: expected one finished or running rollout")
    done = _optional_json(folder / "done.json")
    verdict = cast(Verdict | None, _optional_json(folder / STOP_FILE))
    counted = None if verdict is None else {(task, init) for task, init in verdict["counted"]}
    is_counted = [counted is None or (row.task_id, row.init_index) in counted for row in rows]
    return Arm(
        name=names[0],
        folder=folder,
        rows=list(compress(rows, is_counted)),
        left_out=list(compress(rows, map(operator.not_, is_counted))),
        is_finished=done is not None,
        seconds=None if done is None else done.get("seconds"),
        manifest=_optional_json(folder / "manifest.json") or {},
        verdict=verdict,
    )


def read_arms(folders: Sequence[Path]) -> list[Arm]:
    """Read run folders; arms of equal name are told apart by their folders."""
    arms = [read_arm(folder) for folder in folders]
    counts = Counter(arm.name for arm in arms)
    renamed = [
        replace(arm, name=f"{arm.name} ({arm.folder})") if counts[arm.name] > 1 else arm
        for arm in arms
    ]
    if len({arm.name for arm in renamed}) < len(renamed):
        raise UserError(f"a run folder is given twice: {', '.join(map(str, folders))}")
    return renamed


def _optional_json(path: Path) -> Any:
    return read_json(path) if path.exists() else None
