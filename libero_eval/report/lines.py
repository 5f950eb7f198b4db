"""Numbers of one task, of a whole run, of how fast it went, and how much of its protocol it is."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

from invact_vla.core.text_table import percent
from invact_vla.stats.rates import Interval, Rate, wilson
from libero_eval.env.protocol import PROTOCOLS
from libero_eval.env.tasks import instruction
from libero_eval.report.policies import EvaluatedPolicy
from libero_eval.results.rows import EpisodeRow, by_task
from libero_eval.results.statistics import RateRefused, rate

TOTAL = "all"  # label of the line of all tasks


@dataclass(frozen=True, kw_only=True)
class Line:
    """A task, or all of them. rate and goals: None while an episode is an error."""

    label: str
    instruction: str
    n: int
    successes: int
    errors: int
    rate: Rate | None
    # share of goal predicates true, in [0, 1], means over episodes: at the best moment, at the end
    goals_best: float | None
    goals_satisfied: float | None
    steps: float | None  # mean policy steps of the successes, None without any
    closest_m: float | None  # median smallest distance of the gripper to an object of the goal

    @property
    def counts(self) -> str:
        """k/n, or k/n with the errors that forbid a rate."""
        if not self.errors:
            return f"{self.successes}/{self.n}"
        return f"{self.successes}/{self.n}, {self.errors} error{'s' * (self.errors > 1)}"

    @property
    def rate_text(self) -> str:
        """Percent with the interval, or why there is none."""
        if self.rate is None:
            return "no rate"
        low, high = 100 * self.rate.low, 100 * self.rate.high
        return f"{100 * self.rate.value:.1f} % [{low:.1f}, {high:.1f}]"

    @property
    def progress(self) -> list[str]:
        """Goals at the best moment and at the end, steps to success, closest approach, in words."""
        steps = "–" if self.steps is None else f"{self.steps:.0f}"
        near = "–" if self.closest_m is None else f"{100 * self.closest_m:.1f} cm"
        return [percent(self.goals_best), percent(self.goals_satisfied), steps, near]


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Speed. Per process from the rows' own durations; of the run from its wall clock.

    The run's includes loading, filming and pauses, and is None while it is not finished.
    """

    episodes_per_hour: float
    steps_per_s: float
    run_episodes_per_hour: float | None


def line(label: str, rows: Sequence[EpisodeRow], interval: Interval = wilson) -> Line:
    """Numbers of these rows; the instruction, where they are a task's."""
    outcomes = Counter(row.outcome for row in rows)
    ended = [] if outcomes["error"] else [row for row in rows if row.goals_total]
    steps = [row.steps for row in rows if row.outcome == "success"]
    near = [row.closest_m for row in ended if row.closest_m is not None]
    tasks = {row.task for row in rows}
    try:
        found = rate(rows, interval=interval)
    except RateRefused:
        found = None
    return Line(
        label=label,
        instruction=instruction(tasks.pop()) if len(tasks) == 1 and label != TOTAL else "",
        n=len(rows),
        successes=outcomes["success"],
        errors=outcomes["error"],
        rate=found,
        goals_best=mean(r.goals_best / r.goals_total for r in ended) if ended else None,
        goals_satisfied=mean(r.goals_satisfied / r.goals_total for r in ended) if ended else None,
        steps=mean(steps) if steps else None,
        closest_m=median(near) if near else None,
    )


def lines_of(policy: EvaluatedPolicy) -> list[Line]:
    """One line per task, and the total as the last."""
    groups = by_task(policy.rows)
    several = len({suite for suite, _ in groups}) > 1
    lines = [
        line(f"{suite} {task}" if several else str(task), rows, policy.interval)
        for (suite, task), rows in groups.items()
    ]
    return [*lines, line(TOTAL, policy.rows, policy.interval)]


def throughput(policy: EvaluatedPolicy) -> Throughput | None:
    """How fast the episodes went; None if no row has a duration."""
    timed = [row for row in policy.rows + policy.left_out if row.wall_s > 0]
    seconds = sum(row.wall_s for row in timed)
    if not seconds:
        return None
    total = len(policy.rows) + len(policy.left_out)
    return Throughput(
        episodes_per_hour=3600 * len(timed) / seconds,
        steps_per_s=sum(row.steps for row in timed) / seconds,
        run_episodes_per_hour=3600 * total / policy.seconds if policy.seconds else None,
    )


def throughput_text(policy: EvaluatedPolicy) -> str:
    """A sentence on speed."""
    speed = throughput(policy)
    if speed is None:
        return "Throughput unknown: no episode has a duration."
    words = (
        f"An episode at a time: {speed.episodes_per_hour:.0f} episodes/h, "
        f"{speed.steps_per_s:.1f} steps/s (from the rows' wall_s)."
    )
    whole = speed.run_episodes_per_hour
    if whole is None:
        return words
    return (
        f"{words} The whole run, loading and filming included: {whole:.0f} episodes/h (from "
        "done.json)."
    )


def origin(policy: EvaluatedPolicy) -> dict[str, str]:
    """What the run was made with, hashes last."""
    found = {}
    for name in ("protocol", "pack", "seed", "protocol_hash", "pack_hash", "manifest_hash",
                 "checkpoint_hash"):  # fmt: skip
        values = sorted({str(getattr(row, name)) for row in policy.rows})
        found["assets" if name == "pack" else name.replace("_", " ")] = ", ".join(values)
    return found


def environment(manifest: dict[str, Any]) -> list[tuple[str, str]]:
    """Rows of a table of an environment manifest."""
    flat = {k: v for k, v in manifest.items() if k != "packages"} | manifest.get("packages", {})
    return [(name, str(value)) for name, value in flat.items()]


def caveats(policy: EvaluatedPolicy) -> list[str]:
    """What a reader must know before quoting the rate; empty if nothing."""
    found = []
    errors = [row for row in policy.rows if row.outcome == "error"]
    if errors:
        reason = errors[0].reason.strip().splitlines()[0]
        found.append(
            f"No rate: {len(errors)} of {len(policy.rows)} episodes ended as errors, which are "
            f"neither success nor failure (first: task {errors[0].task_id}, init state "
            f"{errors[0].init_index}: {reason}). Run the same command again: only those are repeated."
        )
    if not policy.is_finished:
        found.append(
            "The run is not finished: episodes that succeed end sooner, so what is here so far "
            "may show too many successes."
        )
    if policy.verdict is not None:
        found.append(
            f"Early stop: {policy.verdict['why']}. Intervals are those of a confidence sequence, valid "
            f"although the run could stop at any round; {len(policy.left_out)} episodes beyond the "
            "last whole round are not counted."
        )
    counts = {line.n for line in lines_of(policy)[:-1]}
    if len(counts) > 1:
        found.append(
            f"Tasks have unequal numbers of episodes ({min(counts)} to {max(counts)}): the total "
            "weighs tasks by them."
        )
    return found


def scope_line(policies: Sequence[EvaluatedPolicy]) -> str:
    """Such as "2 of 10 tasks, 4 of 500 episodes, procedural assets: not comparable with published
    rates", or "" where every policy ran its whole protocol unchanged on official assets.
    """
    scopes = {policy.name: ", ".join(deviations(policy.rows)) for policy in policies}
    if not any(scopes.values()):
        return ""
    words = "; ".join(f"{name}: {text or 'complete'}" for name, text in scopes.items())
    if len(set(scopes.values())) == 1:
        words = next(iter(scopes.values()))
    return f"{words}: not comparable with published rates"


def deviations(rows: Sequence[EpisodeRow]) -> list[str]:
    """In what these episodes are less or other than their protocols, a phrase each."""
    names = {row.protocol.split(",")[0] for row in rows}
    known = [PROTOCOLS[name] for name in names if name in PROTOCOLS]
    if len(known) < len(names):
        return ["tasks that LIBERO does not have"]
    sizes = [90 if protocol.suite == "libero_90" else 10 for protocol in known]
    tasks = len({(row.suite, row.task_id) for row in rows})
    episodes = sum(size * row.trials for size, row in zip(sizes, known, strict=True))
    found = [f"{tasks} of {sum(sizes)} tasks"] * (tasks < sum(sizes))
    found += [f"{len(rows)} of {episodes} episodes"] * (len(rows) < episodes)
    found += sorted({change for row in rows for change in row.protocol.split(", ")[1:]})
    return found + [f"{pack} assets" for pack in sorted({r.pack for r in rows} - {"official"})]
