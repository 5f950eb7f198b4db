"""Policies against the first: totals and tasks, with what is worth saying about them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from invact_vla.core.errors import UserError
from invact_vla.core.text_table import p_text, points, whole_percent
from invact_vla.stats.differences import Comparison, compare_sequential, holm
from invact_vla.stats.power import detectable_paired
from libero_eval.report.lines import TOTAL, caveats, line
from libero_eval.report.policies import EvaluatedPolicy
from libero_eval.results.rows import EpisodeRow, by_task
from libero_eval.results.statistics import LEVEL, compare, outcomes, rate

DISCORDANT_PAIRS = 6  # the fewest whose split can be significant at alpha = 0.05


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One line: second against first, in a task or in all."""

    label: str
    instruction: str
    first_counts: str
    second_counts: str
    comparison: Comparison
    holm_p: float  # corrected for its table

    @property
    def across(self) -> str:
        """What differs between the two besides the policy, to stand before every line."""
        names = [phrase.split()[0] for phrase in self.comparison.differs]
        return f"[across {', '.join(names)}] " if names else ""

    @property
    def size(self) -> str:
        """+8.0 [-1.2, +17.0], in percentage points."""
        c = self.comparison
        return f"{points(c.difference)} [{points(c.low)}, {points(c.high)}]"

    @property
    def discordant(self) -> str:
        """Episodes that only the second : only the first policy solved."""
        c = self.comparison
        return f"{c.only_second} : {c.only_first}" if c.is_paired else "not paired"

    def cells(self) -> list[str]:
        """For the head of `PolicyComparison.table`."""
        ps = p_text(self.comparison.p_value, ""), p_text(self.holm_p, "")
        counts = self.first_counts, self.second_counts
        return [
            self.across + self.label, *counts, self.size, self.discordant, *ps, self.instruction,
        ]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PolicyComparison:
    """One policy against the first."""

    first: EvaluatedPolicy
    second: EvaluatedPolicy
    total: Difference
    tasks: list[Difference]
    only_in_one: list[str]  # tasks that one policy lacks, in words

    def table(self) -> list[list[str]]:
        """Head, tasks and total; counts alone where nothing can be significant. Instructions last."""
        first, second = self.first.name, self.second.name
        size = f"difference (percentage points) [{whole_percent(LEVEL)}]"
        pairs = f"discordant pairs ({second} only : {first} only)"
        head = ["task", first, second, size, pairs, "p", "p (Holm)", "instruction"]
        rows = [head, *(difference.cells() for difference in (*self.tasks, self.total))]
        return rows if self.is_decidable else [[*row[:3], row[-1]] for row in rows]

    @property
    def is_decidable(self) -> bool:
        """Whether any split of the discordant pairs could be significant: McNemar's exact p of m
        pairs is at least 2 / 2^m."""
        c = self.total.comparison
        pairs = (c.only_first or 0) + (c.only_second or 0)
        return not c.is_paired or pairs >= DISCORDANT_PAIRS


class _Question(NamedTuple):
    """Rows of two policies to compare, of a task or of all."""

    label: str
    first: EvaluatedPolicy
    second: EvaluatedPolicy
    ours: list[EpisodeRow]
    theirs: list[EpisodeRow]


def compare_policies(
    policies: Sequence[EvaluatedPolicy], across: bool = False, seed: int = 0
) -> list[PolicyComparison]:
    """All policies against the first, in the tasks that both ran; p values of the totals are
    Holm-corrected for their number, those of the tasks for the number of tasks. UserError for two that
    share no task."""

    def answer(questions: list[_Question]) -> list[Difference]:
        found = [_compare(question, seed, across) for question in questions]
        corrected = holm([comparison.p_value for comparison in found])
        differences = []
        for question, comparison, p in zip(questions, found, corrected, strict=True):
            ours, theirs = (line(question.label, rows) for rows in question[3:])
            differences.append(
                Difference(
                    label=question.label, instruction=ours.instruction, first_counts=ours.counts,
                    second_counts=theirs.counts, comparison=comparison, holm_p=p,
                )
            )  # fmt: skip
        return differences

    first, *others = policies
    totals = answer([_total(first, policy) for policy in others])
    return [
        PolicyComparison(
            first=first,
            second=policy,
            total=total,
            tasks=answer(_tasks(first, policy)),
            only_in_one=_only_in_one(first, policy),
        )
        for policy, total in zip(others, totals, strict=True)
    ]


def _compare(question: _Question, seed: int, across: bool) -> Comparison:
    """One comparison; by confidence sequence on the shared episodes if a policy stopped early."""
    _, first, second, ours, theirs = question
    if first.verdict is None and second.verdict is None:
        return compare(ours, theirs, seed, across)
    a, b = outcomes(ours), outcomes(theirs)
    shared = sorted(a.keys() & b.keys())
    if not shared:
        raise UserError(
            f"{first.name} and {second.name} share no episode, and one of them stopped early: only "
            "a paired comparison is valid then; run the same episodes in both"
        )
    kept = [[r for r in rows if r.episode in set(shared)] for rows in (ours, theirs)]
    differs = compare(kept[0], kept[1], seed, across).differs  # refuses errors and settings
    result = compare_sequential([a[e] for e in shared], [b[e] for e in shared], LEVEL)
    return Comparison(**{**vars(result), "differs": differs})


def _total(first: EvaluatedPolicy, second: EvaluatedPolicy) -> _Question:
    """All rows of the tasks that both ran: a task of one alone says nothing about the difference."""
    for policy in (first, second):
        rate(policy.rows)  # refuses errors, those of a task that one alone ran too
    questions = _tasks(first, second)
    if not questions:
        raise UserError(
            f"{first.name} and {second.name} share no task: a difference would be that of the tasks; "
            "run the same ones in both"
        )
    ours = [row for question in questions for row in question.ours]
    return _Question(TOTAL, first, second, ours, [row for q in questions for row in q.theirs])


def _tasks(first: EvaluatedPolicy, second: EvaluatedPolicy) -> list[_Question]:
    ours, theirs = by_task(first.rows), by_task(second.rows)
    shared = sorted(ours.keys() & theirs.keys())
    return [_Question(str(t[1]), first, second, ours[t], theirs[t]) for t in shared]


def _only_in_one(first: EvaluatedPolicy, second: EvaluatedPolicy) -> list[str]:
    ours, theirs = by_task(first.rows), by_task(second.rows)
    return [
        f"{suite} {task} only in {policy.name}: not compared"
        for policy, mine, other in ((first, ours, theirs), (second, theirs, ours))
        for suite, task in sorted(mine.keys() - other.keys())
    ]


def conclusion(result: PolicyComparison, alpha: float = 0.05) -> str:
    """Sentences that a reader may quote."""
    total = result.total
    significant = "significant" if total.holm_p < alpha else "not significant"
    words = (
        f"{total.across}{result.second.name} against {result.first.name}: "
        f"{points(total.comparison.difference)} percentage points [{total.size.split(' [')[1]}, "
        f"{significant} (alpha = {alpha:g}, {p_text(total.holm_p)})."
    )
    agreement, n = total.comparison.agreement, total.comparison.n_second
    if agreement is None:
        return words
    gap = detectable_paired(n, 1 - agreement) if agreement < 1 else None
    found = "no true difference" if gap is None else "a true difference of"
    size = "" if gap is None else f" {100 * gap:.1f} percentage points"
    return (
        f"{words} Both agree in {whole_percent(agreement)} of {n} episodes; {found}{size} would be "
        "found with 80 % power."
    )


def notes(result: PolicyComparison) -> list[str]:
    """Method, what differs, and the caveats of both policies."""
    shared = {r.episode for r in result.first.rows} & {r.episode for r in result.second.rows}
    counts = f"{len(result.first.rows)} and {len(result.second.rows)}, {len(shared)} of them shared"
    found = [f"Method: {result.total.comparison.method}. Episodes: {counts}."]
    found += [f"Differs: {phrase}." for phrase in result.total.comparison.differs]
    found += [f"{words}." for words in result.only_in_one]
    for policy in (result.first, result.second):
        found += [f"{policy.name}: {caveat}" for caveat in caveats(policy)]
    return found
