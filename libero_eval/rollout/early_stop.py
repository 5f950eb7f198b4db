"""Stop a rollout early without spoiling its interval.

Three things keep the statement true although the run ended because of what it had seen:

1. Episodes run in balanced rounds: every round holds the same number of init states of each task
   (`balanced_order`), so a stopped run is not a sample of the first tasks.
2. Only whole rounds count, and only rounds before the first unfinished one (`Stopper`).
   Episodes that succeed are short and come back first; whoever counts what has come back counts
   too many successes.
3. After each whole round the interval is one of a confidence sequence, which holds at all rounds
   together (`invact_vla.stats.rates`); a Wilson interval that is looked at again and again
   does not.

Such an interval is about 1.7 times as wide as a fixed one after equally many episodes; what one
gets for it is the freedom to stop.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from invact_vla.core.errors import UserError
from invact_vla.stats.differences import discordant
from invact_vla.stats.rates import difference_sequence, rate_sequence
from libero_eval.results.rows import Episode, EpisodeRow, read_episodes
from libero_eval.results.statistics import LEVEL, RateRefused, outcomes, settings_differ
from libero_eval.rollout.episode import Job

STOP_FILE = "early_stop.json"  # in the run folder: the verdict of a run with a rule


@dataclass(frozen=True, kw_only=True)
class EarlyStop:
    """When a run may end before its last episode. At least one of `width` and `baseline`."""

    width: float | None = None  # stop when the interval is at most this wide, 0.1 is 10 points
    baseline: Path | None = None  # finished run folder: stop when the difference from it is not 0
    per_round: int = 5  # init states of each task in a round; the rule looks after each round

    def __post_init__(self) -> None:
        if self.width is None and self.baseline is None:
            raise ValueError("early_stop: give a width, a baseline, or both")
        if self.width is not None and not 0 < self.width < 2:
            raise ValueError(f"early_stop: width must lie in (0, 2), got {self.width}")
        if self.per_round < 1:
            raise ValueError(f"early_stop: per_round must be at least 1, got {self.per_round}")


class Verdict(TypedDict):
    """What a run with a rule says at its end; the content of STOP_FILE."""

    stopped: bool
    why: str
    baseline: str | None
    estimate: (
        float  # of the rate, or of the difference from the baseline, over the counted episodes
    )
    low: float
    high: float
    level: float  # confidence of the interval over the whole run, looks included
    counted: list[tuple[int, int]]  # (task, init state) of all whole rounds until the rule was met


def rounds_of(jobs: Sequence[Job], per_round: int) -> list[list[Job]]:
    """The jobs in rounds: round r holds the r-th `per_round` init states of every task.

    Raises UserError unless every task has the same number of episodes, a multiple of `per_round`.
    """
    tasks: dict[int, list[Job]] = {}
    for job in jobs:
        tasks.setdefault(job.task_id, []).append(job)
    counts = {len(group) for group in tasks.values()}
    if len(counts) != 1 or min(counts) % per_round:
        raise UserError(
            f"early stop needs equally many episodes of every task, a multiple of {per_round} "
            f"(early_stop.per_round), got {sorted(counts)}"
        )
    return [
        [job for group in tasks.values() for job in group[start : start + per_round]]
        for start in range(0, min(counts), per_round)
    ]


def balanced_order(jobs: Sequence[Job], per_round: int) -> list[Job]:
    """The jobs in the order in which an early-stopped run hands them out."""
    return [job for group in rounds_of(jobs, per_round) for job in group]


class Stopper:
    """Asked after every row whether the run may end.

    jobs: all episodes of the run, in any order. A resumed run gives its old rows first.
    """

    def __init__(self, rule: EarlyStop, jobs: Sequence[Job]) -> None:
        self.rule = rule
        groups = rounds_of(jobs, rule.per_round)
        self._rounds = [[(job.task_id, job.init_index) for job in group] for group in groups]
        self._ended: dict[tuple[int, int], EpisodeRow] = {}
        self._counted: list[EpisodeRow] = []  # of whole rounds, in their order
        self._next_round = 0
        self._why = ""
        self._baseline: dict[Episode, bool] | None = None
        if rule.baseline is not None:
            self._baseline_rows = _baseline_rows(rule.baseline, self._rounds)
            self._baseline = outcomes(self._baseline_rows)

    def update(self, row: EpisodeRow) -> bool:
        """Take a row; True once the rule is met, and from then on."""
        if self._baseline is not None and not self._ended:
            differs = settings_differ(self._baseline_rows, [row])
            if differs:
                what = "; ".join(differs)
                raise UserError(f"early_stop.baseline cannot be compared with: {what}")
        if row.outcome != "error":
            self._ended[row.task_id, row.init_index] = row
        # one row may complete several rounds: each is looked at, as if it had come alone
        while not self._why and self._next_round < len(self._rounds):
            episodes = self._rounds[self._next_round]
            if any(episode not in self._ended for episode in episodes):
                break
            self._counted += [self._ended[episode] for episode in episodes]
            self._next_round += 1
            self._why = self._met()
        return bool(self._why)

    def verdict(self) -> Verdict:
        """What the run says now; RateRefused if not even one round is whole."""
        if not self._counted:
            raise RateRefused("early_stop: not one round of episodes is whole, so there is no rate")
        estimate, low, high = self._interval()
        return Verdict(
            stopped=bool(self._why),
            why=self._why or "the rule was not met: all episodes were run",
            baseline=None if self.rule.baseline is None else str(self.rule.baseline),
            estimate=estimate,
            low=low,
            high=high,
            level=LEVEL,
            counted=[(row.task_id, row.init_index) for row in self._counted],
        )

    def _met(self) -> str:
        rule, (_, low, high) = self.rule, self._interval()
        after = f"after {len(self._counted)} episodes"
        if self._baseline is not None and not low <= 0 <= high:
            sign = "better" if low > 0 else "worse"
            return f"{after} the policy is {sign} than {rule.baseline}"
        if rule.width is not None and high - low <= rule.width:
            return f"{after} the interval is {high - low:.3f} wide; {rule.width:g} was asked for"
        return ""

    def _interval(self) -> tuple[float, float, float]:
        """(estimate, low, high) of the rate, or of the difference from the baseline."""
        candidate, n = outcomes(self._counted), len(self._counted)
        if self._baseline is None:
            k = sum(candidate.values())
            return k / n, *rate_sequence(k, n, LEVEL)
        reference = [self._baseline[episode] for episode in candidate]
        losses, wins = discordant(reference, list(candidate.values()))
        interval = difference_sequence(losses, n - losses - wins, wins, LEVEL)
        return (wins - losses) / n, *interval


def _baseline_rows(folder: Path, rounds: Sequence[Sequence[tuple[int, int]]]) -> list[EpisodeRow]:
    """Rows of the baseline for every episode of this run; UserError if one is missing or an error."""
    wanted = {episode for episodes in rounds for episode in episodes}
    rows = [row for row in read_episodes(folder) if (row.task_id, row.init_index) in wanted]
    have = {(row.task_id, row.init_index) for row in rows if row.outcome != "error"}
    if have != wanted:
        raise UserError(
            f"early_stop.baseline {folder} lacks {len(wanted - have)} of the {len(wanted)} episodes "
            "of this run: finish it with the same tasks and init states first"
        )
    return rows
