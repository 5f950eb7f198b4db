"""`invact libero plan --detect 8pp`: how many episodes a difference takes, and how many hours.

Power is exact for the tests that `invact libero compare` runs (McNemar on pairs, Fisher without);
the textbook's normal approximation stands beside them.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from invact_vla.core.errors import UserError
from invact_vla.core.text_table import percent, text_table, whole_percent
from invact_vla.stats.power import (
    detectable_gap,
    detectable_paired,
    power,
    power_fisher,
    power_mcnemar,
    required_n,
    required_pairs,
    smallest_n,
)
from libero_eval.report.lines import throughput
from libero_eval.report.policies import read_policy

INIT_STATES = 50  # that LIBERO ships per task
POWER = 0.8  # chance of seeing the difference if it is there
LADDER = (50, 100, 200, 500, 1000)


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """The difference to see, and what is known beforehand."""

    # difference in success: 8pp and 0.08 are the same (8 with a percent sign too)
    detect: str = "8pp"
    base: float = 0.5  # success rate of the policy that is worse, in [0, 1]
    alpha: float = 0.05  # chance of seeing a difference that is not there
    agreement: float = 0.7  # share of episodes that both policies end alike; `compare` prints it
    tasks: int = 10  # tasks per suite
    suites: int = 1  # suites that are run
    run: Path | None = None  # a finished rollout, for its episodes per hour

    def __post_init__(self) -> None:
        gap = fraction(self.detect)
        if not (self.base >= 0 and self.base + gap <= 1):
            raise ValueError(
                f"base {self.base:g} plus {gap:g} must stay in [0, 1]: give the worse policy's rate"
            )
        if not 0 < self.alpha < POWER:
            raise ValueError(f"need 0 < alpha < {POWER}, got {self.alpha:g}")
        if self.tasks < 1 or self.suites < 1:
            raise ValueError("need tasks and suites of at least 1")
        most = 1 - gap
        if not self.least_agreement - 1e-9 <= self.agreement <= most + 1e-9:
            raise ValueError(
                f"agreement {self.agreement:g} is impossible with rates {self.base:g} and "
                f"{self.base + gap:g}: between {self.least_agreement:.2f} and {most:.2f}"
            )

    @property
    def gap(self) -> float:
        """The difference as a fraction."""
        return fraction(self.detect)

    @property
    def least_agreement(self) -> float:
        """What two policies of these rates agree on at least."""
        return abs(1 - 2 * self.base - self.gap)


def fraction(text: str) -> float:
    """A difference in (0, 1) from "8pp", "8 %" or "0.08". ValueError for anything else."""
    match = re.fullmatch(r"\s*([0-9.]+)\s*(pp|%)?\s*", text)
    try:
        value = float(match[1]) / (100 if match[2] else 1) if match else 0.0
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise ValueError(f"detect: expected a difference such as 8pp or 0.08, got {text!r}")
    return value


@dataclass(frozen=True)
class Need:
    """A way of comparing, and the episodes per policy that it takes; None: more than can be run."""

    name: str
    episodes: int | None
    power_of: Callable[[int], float]


def needs(config: PlanConfig) -> list[Need]:
    """Paired and unpaired, what `compare` runs first."""
    first, second = config.base, config.base + config.gap
    alpha, target = config.alpha, POWER

    def paired(agreement: float) -> Need:
        lost = max(0.0, (1 - agreement - config.gap) / 2)
        won = (1 - agreement + config.gap) / 2
        power_of = lambda n: power_mcnemar(lost, won, n, alpha)
        episodes = smallest_n(power_of, target, required_pairs(lost, won, target, alpha))
        return Need(f"paired, {whole_percent(agreement)} alike", episodes, power_of)

    z_n = required_n(first, second, target, alpha)
    fisher = lambda n: power_fisher(first, second, n, alpha)
    unrelated = first * second + (1 - first) * (1 - second)  # of outcomes that are independent
    agreements = sorted({config.agreement, unrelated}, reverse=True)
    return [
        *map(paired, agreements),
        Need("unpaired", smallest_n(fisher, target, z_n), fisher),
        Need("unpaired (z)", z_n, lambda n: power(first, second, n, alpha)),
    ]


def main(config: PlanConfig) -> list[Need]:
    """Print the plan and return it."""
    found = needs(config)
    per_hour = _episodes_per_hour(config.run) if config.run else None
    head = ["comparison", "episodes", "per task", "episodes in all"] + ["hours"] * bool(per_hour)
    rows = [[need.name, *_costs(config, need.episodes, per_hour)] for need in found]
    chances = [[need.name, *(f"{need.power_of(n):.2f}" for n in LADDER)] for need in found]
    parts = [
        f"To distinguish {percent(config.base)} from {percent(config.base + config.gap)} with a "
        f"power of {whole_percent(POWER)} at alpha = {config.alpha:g} (two-sided), each "
        "policy needs:",
        text_table(head, rows, left=(0,)),
        text_table(["power with episodes per policy", *map(str, LADDER)], chances, left=(0,)),
        *_remarks(config, found, per_hour),
    ]
    print("\n\n".join(parts))
    return found


def _costs(config: PlanConfig, episodes: int | None, per_hour: float | None) -> list[str]:
    """Episodes, those per task (rounded up, so that every task has equally many), in all, hours."""
    if episodes is None:
        return ["> 20000", "–", "–"] + ["–"] * bool(per_hour)
    per_task = math.ceil(episodes / (config.tasks * config.suites))
    total = per_task * config.tasks * config.suites * 2  # policies
    hours = [f"{total / per_hour:.1f}"] if per_hour else []
    return [str(episodes), str(per_task), str(total), *hours]


def _remarks(config: PlanConfig, found: list[Need], per_hour: float | None) -> list[str]:
    available = INIT_STATES * config.tasks * config.suites
    power_of = lambda gap: power_fisher(config.base, config.base + gap, available, config.alpha)
    unpaired = detectable_gap(power_of, 1 - config.base, POWER)
    paired = detectable_paired(available, 1 - config.agreement, POWER, config.alpha)
    too_few = (found[0].episodes or math.inf) > available
    return [
        f"LIBERO ships {INIT_STATES} init states per task: {available} episodes per policy here. They "
        f"show a difference of {_points(paired)} paired at {whole_percent(config.agreement)} "
        f"agreement, of {_points(unpaired)} unpaired.",
        *["That is too few for this difference: run more suites (--suites), or settle for less."]
        * too_few,
        f"Hours: at {per_hour:.0f} episodes/h, measured in {config.run}."
        if per_hour
        else "Hours: give a finished rollout with --run.",
        "Noise of training seeds comes on top: episodes of one checkpoint say nothing about it.",
    ]


def _points(gap: float | None) -> str:
    return "no size" if gap is None else f"{100 * gap:.1f} percentage points"


def _episodes_per_hour(folder: Path) -> float:
    """Measured in a finished run; UserError if there is nothing to measure."""
    speed = throughput(read_policy(folder))
    if speed is None or speed.run_episodes_per_hour is None:
        raise UserError(f"{folder} has no duration: give a finished rollout as --run")
    return speed.run_episodes_per_hour
