"""Which labeler to use: pass marks with their reasons, and one sentence that intervals allow.

A mark is passed where the whole interval lies on its good side, failed where it lies on the other, and
else it cannot be said. Marks are judgments, not laws; each says why it stands where it does.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from latent_actions.report.action_probes import CODES, RANDOM, TRUE, difference
from latent_actions.report.measure import Measured
from latent_actions.report.probes import Estimate

Outcome = Literal["pass", "fail", "cannot be said"]
UNKNOWN: Outcome = "cannot be said"


@dataclass(frozen=True)
class Mark:
    """A pass mark. measure: what is judged, None where it was not measured; at: the mark; high: whether
    more is better; asks: the mark in a few words; reason: in full."""

    name: str
    measure: Callable[[Measured], Estimate | None]
    at: Callable[[Measured], float]
    high: bool
    asks: str
    reason: str

    def judge(self, measured: Measured) -> tuple[Outcome, Estimate | None]:
        """The outcome for a store, and what was judged."""
        estimate = self.measure(measured)
        if estimate is None or np.isnan(estimate.low):
            return UNKNOWN, estimate
        at = self.at(measured)
        good, bad = estimate.low >= at, estimate.high < at
        if not self.high:
            good, bad = estimate.high <= at, estimate.low > at
        return ("pass" if good else "fail" if bad else UNKNOWN), estimate


def _lowest(measured: Measured) -> Estimate | None:
    usage = measured.usage
    return None if isinstance(usage, str) else min(usage.perplexity, key=lambda e: e.value)


def _of(part: str, name: str) -> Callable[[Measured], Estimate | None]:
    """A number of a part of the results; None where the part is a sentence."""

    def read(measured: Measured) -> Estimate | None:
        value = getattr(measured, part)
        return None if isinstance(value, str) else getattr(value, name)

    return read


def _half_random(measured: Measured) -> float:
    return 0.0 if isinstance(measured.usage, str) else measured.usage.random_entropy / 2


def _fixed(value: float) -> Callable[[Measured], float]:
    return lambda measured: value


MARKS = (
    Mark("codes in use", _lowest, lambda m: 5 / 8 * m.labeled.codebook_size, True, "at least 5 of 8",
         "lowest perplexity of a position: a healthy labeler uses all of its codes"),
    Mark("codes differ", _of("usage", "entropy"), _half_random, True, "at least half of uniform",
         "joint entropy against what uniform codes have on as many pairs: positions that copy "
         "one another pass the first mark and fail here"),
    Mark("codes tell the action", _of("actions", "headline"), _fixed(0.1), True, "at least 0.1",
         "R2 of a linear probe over the translations, in the best frame: LARYBench's "
         "probes give 0.03 for LAPA, 0.13 for UniVLA, 0.81 for DINOv3 features"),
    Mark("codes add to the frame", _of("actions", "gain"), _fixed(0.02), True, "at least 0.02",
         "R2 with the codes minus R2 of the first frame alone: else a policy that "
         "sees the frame learns nothing from them"),
    Mark("same action, other place", _of("elsewhere", "normalized"), _fixed(0.02), True, "at least 0.02",
         "normalized agreement: 0 is chance; verbs are coarse, so 1 is out of reach. Of one true motion "
         "where no verb is done in two places"),
    Mark("same moment, other view", _of("view", "normalized"), _fixed(0.1), True, "at least 0.1",
         "normalized agreement: the motion is the very same"),
    Mark("place is not told", _of("place", "told"), _fixed(0.1), False, "at most 0.1",
         "R2 of the place, told by a probe on the codes: 0 is nothing, 1 is always right"),
    Mark("camera is not told", _of("camera", "told"), _fixed(0.1), False, "at most 0.1",
         "the same for the camera"),
    Mark("time has a direction", _of("meaning", "reversed_same"), _fixed(0.5), False, "at most 0.5",
         "normalized agreement of a pair and its reverse: opening is not closing"),
    Mark("decoder uses the codes", _of("reconstruction", "gain"), _fixed(0.02), True, "at least 0.02",
         "R2 over the copy of the first frame, true codes minus other codes"),
)  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """choice: which labeler to use; why; chosen: its name, None where none can be named; by: what it
    was ranked by; pairs: which pairs it is about, where there are several sets."""

    choice: str
    why: str
    chosen: str | None
    by: str
    pairs: str = ""

    @property
    def sentence(self) -> str:
        """All of it."""
        return f"{self.pairs}{': ' if self.pairs else ''}{self.choice}: {self.why}"


def interval(estimate: Estimate | None, digits: int = 2) -> str:
    """0.12 [0.05, 0.18], or a dash."""
    if estimate is None or np.isnan(estimate.value):
        return "–"
    value, low, high = (rounded(v, digits) for v in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]"


def rounded(value: float, digits: int = 2) -> str:
    """0.00 instead of -0.00."""
    return f"{round(value, digits) + 0.0:.{digits}f}"


def verdicts(measured: Sequence[Measured]) -> list[Verdict]:
    """One for each set of pairs: what was measured on other pairs cannot be compared."""
    groups: dict[str, list[Measured]] = {}
    for one in measured:
        groups.setdefault(one.labeled.store.identity.dataset_hash, []).append(one)
    if len(groups) == 1:
        return [verdict(measured)]
    names = [
        f"{g[0].labeled.store.identity.dataset}, {len(g[0].labeled.store)} pairs"
        for g in groups.values()
    ]
    return [replace(verdict(g), pairs=name) for g, name in zip(groups.values(), names, strict=True)]


def verdict(measured: Sequence[Measured]) -> Verdict:
    """By true actions where they are known, else by agreement across places, else none."""
    candidates = [m for m in measured if not m.labeled.is_control and not isinstance(m.usage, str)]
    if not candidates:
        return Verdict("Nothing to choose from", "all stores are controls, or empty.", None, "")
    by_action = [m for m in candidates if not isinstance(m.actions, str)]
    by_action = [m for m in by_action if not np.isnan(_headline(m).value)]
    if by_action:
        return _ranked(by_action, _headline, "true actions", _action_words)
    by_scene = [m for m in candidates if not isinstance(m.scene, str)]
    if by_scene:
        found = _ranked(by_scene, _scene, "agreement across places", _scene_words)
        caution = " No true actions are known, so whether the codes mean actions cannot be said."
        return replace(found, why=found.why + caution)
    usable = [m.name for m in candidates if MARKS[0].judge(m)[0] != "fail"]
    words = f"codes are in use in {', '.join(usable)}" if usable else "no labeler uses its codes"
    why = f"neither true actions nor verbs are known; {words}, and more these videos do not tell."
    return Verdict("Cannot be said", why, None, "usage")


def _headline(measured: Measured) -> Estimate:
    assert not isinstance(measured.actions, str)
    return measured.actions.headline


def _scene(measured: Measured) -> Estimate:
    assert not isinstance(measured.scene, str)
    return measured.scene.normalized


def _action_words(measured: Measured) -> str:
    actions = measured.actions
    assert not isinstance(actions, str)
    rows = actions.scores[actions.best]
    upper = (
        f", true actions in as many codes {rounded(rows[TRUE].mean.value)}" if TRUE in rows else ""
    )
    return (
        f"a linear probe reads R2 {interval(rows[CODES].mean)} of the true translations off its codes "
        f"({actions.best} frame; random codes {rounded(rows[RANDOM].mean.value)}{upper})"
    )


def _scene_words(measured: Measured) -> str:
    return f"pairs of one verb in two places agree by {interval(_scene(measured))} above chance"


def _ranked(
    measured: Sequence[Measured], value: Callable[[Measured], Estimate], by: str,
    words: Callable[[Measured], str],
) -> Verdict:  # fmt: skip
    order = sorted(measured, key=lambda m: -value(m).value)
    first, others = order[0], order[1:]
    own = value(first)
    if not own.low > 0:
        best = "it has" if not others else f"the best, {first.name}, has"
        return Verdict(
            "Use none of them yet", f"{best} {interval(own)} by {by}, which holds 0.", None, by
        )
    near = [m for m in others if not _gap(first, m, value).low > 0]
    gaps = ", ".join(f"{m.name} by {interval(_gap(first, m, value))}" for m in near or others)
    if near:
        names = " and ".join(m.name for m in [first, *near])
        why = f"{first.name} is ahead of {gaps}, by {by}. Of {first.name}, {words(first)}."
        return Verdict(f"{names} cannot be distinguished", why, None, by)
    why = f"{words(first)}.{f' Ahead of {gaps}.' if others else ''}{_but(first)}"
    choice = f"Use {first.name}" if others else f"{first.name} alone was measured on these pairs"
    return Verdict(choice, why, first.name if others else None, by)


def _but(measured: Measured) -> str:
    """Which marks it fails, and which are not sure."""
    judged = [(mark.name, *mark.judge(measured)) for mark in MARKS]
    failed = [name for name, outcome, _ in judged if outcome == "fail"]
    unsure = [name for name, outcome, found in judged if outcome == UNKNOWN and found is not None]
    words = f" It fails: {', '.join(failed)}." if failed else ""
    return words + (f" Not sure, with so few videos: {', '.join(unsure)}." if unsure else "")


def _gap(one: Measured, other: Measured, value: Callable[[Measured], Estimate]) -> Estimate:
    """The difference of two labelers; on the same videos its draws belong together."""
    return difference(value(one), value(other))
