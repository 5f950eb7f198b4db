"""Policies against the first: totals and tasks, with what is worth saying about them."""

from collections.abc import Sequence
from dataclasses import dataclass

from invact_vla.core.errors import UserError
from invact_vla.core.text_table import p_text, points, whole_percent
from invact_vla.stats import Comparison, compare_sequential, detectable_paired, holm
from libero_eval.env.tasks import instruction
from libero_eval.report.lines import caveats, line
from libero_eval.report.policies import EvaluatedPolicy
from libero_eval.results.rows import EpisodeRow, by_task
from libero_eval.results.statistics import compare, outcomes

DISCORDANT_PAIRS = 6  # the fewest whose split can be significant at alpha = 0.05


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One line: second against first, in a task or in all. holm_p: p corrected for its table."""

    label: str
    instruction: str
    first_counts: str
    second_counts: str
    comparison: Comparison
    holm_p: float

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
        """For `PolicyComparison.head`."""
        return [
            self.across + self.label,
            self.first_counts,
            self.second_counts,
            self.size,
            self.discordant,
            p_text(self.comparison.p_value, ""),
            p_text(self.holm_p, ""),
            self.instruction,
        ]


@dataclass(frozen=True, kw_only=True)
class PolicyComparison:
    """One policy against the first."""

    first: EvaluatedPolicy
    second: EvaluatedPolicy
    total: Difference
    tasks: list[Difference]
    only_in_one: list[str]  # tasks that one policy lacks, in words
    level: float

    @property
    def head(self) -> list[str]:
        """Heads of the columns."""
        first, second = self.first.name, self.second.name
        size = f"difference (percentage points) [{whole_percent(self.level)}]"
        pairs = f"discordant pairs ({second} only : {first} only)"
        return ["task", first, second, size, pairs, "p", "p (Holm)", "instruction"]

    @property
    def is_decidable(self) -> bool:
        """Whether any split of the discordant pairs could be significant: McNemar's exact p of m
        pairs is at least 2 / 2^m."""
        c = self.total.comparison
        return not c.is_paired or c.only_first + c.only_second >= DISCORDANT_PAIRS


def compare_policies(
    policies: Sequence[EvaluatedPolicy], across: bool = False, seed: int = 0, level: float = 0.95
) -> list[PolicyComparison]:
    """All policies against the first; p values of the totals are Holm-corrected for their number."""
    first = policies[0]
    totals = [
        _compare(first, policy, first.rows, policy.rows, across, seed, level)
        for policy in policies[1:]
    ]
    corrected = holm([total.p_value for total in totals])
    return [
        PolicyComparison(
            first=first,
            second=policy,
            total=_difference("all", first.rows, policy.rows, total, holm_p),
            tasks=_tasks(first, policy, across, seed, level),
            only_in_one=_only_in_one(first, policy),
            level=level,
        )
        for policy, total, holm_p in zip(policies[1:], totals, corrected, strict=True)
    ]


def _compare(
    first: EvaluatedPolicy,
    second: EvaluatedPolicy,
    ours: Sequence[EpisodeRow],
    theirs: Sequence[EpisodeRow],
    across: bool,
    seed: int,
    level: float,
) -> Comparison:
    """One comparison; by confidence sequence on the shared episodes if a policy stopped early."""
    if first.verdict is None and second.verdict is None:
        return compare(ours, theirs, seed, level, across)
    a, b = outcomes(ours), outcomes(theirs)
    shared = sorted(a.keys() & b.keys())
    if not shared:
        raise UserError(
            f"{first.name} and {second.name} share no episode, and one of them stopped early: only "
            "a paired comparison is valid then; run the same episodes in both"
        )
    kept = [[r for r in rows if r.episode in set(shared)] for rows in (ours, theirs)]
    differs = compare(kept[0], kept[1], seed, level, across).differs  # refuses errors and settings
    result = compare_sequential([a[e] for e in shared], [b[e] for e in shared], level)
    return Comparison(**{**vars(result), "differs": differs})


def _tasks(
    first: EvaluatedPolicy, second: EvaluatedPolicy, across: bool, seed: int, level: float
) -> list[Difference]:
    ours, theirs = by_task(first.rows), by_task(second.rows)
    shared = sorted(ours.keys() & theirs.keys())
    found = [_compare(first, second, ours[t], theirs[t], across, seed, level) for t in shared]
    corrected = holm([c.p_value for c in found])
    return [
        _difference(str(task[1]), ours[task], theirs[task], comparison, holm_p)
        for task, comparison, holm_p in zip(shared, found, corrected, strict=True)
    ]


def _difference(
    label: str,
    ours: Sequence[EpisodeRow],
    theirs: Sequence[EpisodeRow],
    comparison: Comparison,
    holm_p: float,
) -> Difference:
    tasks = {row.task for row in (*ours, *theirs)}
    return Difference(
        label=label,
        instruction=instruction(tasks.pop()) if len(tasks) == 1 else "",
        first_counts=line(label, ours).counts,
        second_counts=line(label, theirs).counts,
        comparison=comparison,
        holm_p=holm_p,
    )


def _only_in_one(first: EvaluatedPolicy, second: EvaluatedPolicy) -> list[str]:
    ours, theirs = by_task(first.rows), by_task(second.rows)
    return [
        f"{suite} {task} only in {policy.name}"
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
