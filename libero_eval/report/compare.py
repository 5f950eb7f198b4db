"""`invact libero compare A B...`: are the arms different? All others against the first.

    <out>/compare.json   everything that is printed, as numbers
    <out>/compare.html   the page: tables, which episodes each arm won, their videos

Arms that ran the same episodes are compared pair by pair, others as two samples, and the output
says which. Rows made under different protocols, assets or environments are refused, unless
`--across true`; every line then begins with what differs.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from invact_vla.errors import UserError
from invact_vla.training.files import atomic_file, write_json
from libero_eval.report.arms import Arm, read_arms
from libero_eval.report.lines import caveats, line
from libero_eval.report.text import p_text, points, text_table, whole_percent
from libero_eval.results import EpisodeRow, by_task
from libero_eval.stats import Comparison, compare, compare_sequential, detectable_paired, holm
from libero_eval.stats.differences import outcomes, settings_differ
from libero_eval.tasks import instruction


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Which rollouts to compare, and where the result goes."""

    POSITIONAL: ClassVar[str] = "arms"  # words without a flag

    arms: tuple[Path, ...]  # run folders; the others are compared with the first
    out: Path = Path("runs/compare")  # folder for compare.json and compare.html
    across: bool = False  # compare although protocol, assets or environment differ, and say so
    level: float = 0.95  # confidence of the intervals
    seed: int = 0  # of the bootstrap

    def __post_init__(self) -> None:
        if len(self.arms) < 2:
            raise ValueError(f"arms: give at least two run folders, got {len(self.arms)}")
        if not 0 < self.level < 1:
            raise ValueError(f"level must lie in (0, 1), got {self.level}")


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

    def cells(self) -> list[str]:
        """For `Versus.head`."""
        c = self.comparison
        return [
            self.across + self.label,
            self.first_counts,
            self.second_counts,
            f"{points(c.difference)} [{points(c.low)}, {points(c.high)}]",
            f"{c.only_second} : {c.only_first}" if c.is_paired else "not paired",
            p_text(c.p_value, ""),
            p_text(self.holm_p, ""),
            self.instruction,
        ]


@dataclass(frozen=True, kw_only=True)
class Versus:
    """One arm against the first."""

    first: Arm
    second: Arm
    total: Difference
    tasks: list[Difference]
    only_in_one: list[str]  # tasks that one arm lacks, in words
    level: float

    @property
    def head(self) -> list[str]:
        """Heads of the columns."""
        points = f"points [{whole_percent(self.level)}]"
        names = self.first.name, self.second.name
        return ["task", *names, points, "won : lost", "p", "p (Holm)", "instruction"]


def main(config: CompareConfig) -> Path:
    """Compare, print, write; returns the page's path."""
    from libero_eval.report.compare_page import compare_page

    arms = read_arms(config.arms)
    results = compare_arms(arms, config.across, config.seed, config.level)
    write_json(config.out / "compare.json", as_json(results, config.level))
    path = config.out / "compare.html"
    with atomic_file(path) as temporary:
        temporary.write_text(compare_page(results, config.out))
    print("\n\n".join(text(result) for result in results), end=f"\n{path}\n")
    return path


def compare_arms(
    arms: Sequence[Arm], across: bool = False, seed: int = 0, level: float = 0.95
) -> list[Versus]:
    """All arms against the first; p values of the totals are Holm-corrected for their number."""
    first = arms[0]
    totals = [_compare(first, arm, first.rows, arm.rows, across, seed, level) for arm in arms[1:]]
    corrected = holm([total.p_value for total in totals])
    return [
        Versus(
            first=first,
            second=arm,
            total=_difference("all", first.rows, arm.rows, total, holm_p),
            tasks=_tasks(first, arm, across, seed, level),
            only_in_one=_only_in_one(first, arm),
            level=level,
        )
        for arm, total, holm_p in zip(arms[1:], totals, corrected, strict=True)
    ]


def _compare(
    first: Arm,
    second: Arm,
    ours: Sequence[EpisodeRow],
    theirs: Sequence[EpisodeRow],
    across: bool,
    seed: int,
    level: float,
) -> Comparison:
    """One comparison; by confidence sequence on the shared episodes if an arm stopped early."""
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


def _tasks(first: Arm, second: Arm, across: bool, seed: int, level: float) -> list[Difference]:
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


def _only_in_one(first: Arm, second: Arm) -> list[str]:
    ours, theirs = by_task(first.rows), by_task(second.rows)
    return [
        f"{suite} {task} only in {arm.name}"
        for arm, mine, other in ((first, ours, theirs), (second, theirs, ours))
        for suite, task in sorted(mine.keys() - other.keys())
    ]


def conclusion(result: Versus, alpha: float = 0.05) -> str:
    """One sentence that a reader may quote."""
    total, n = result.total, result.total.comparison.n_second
    c = total.comparison
    names = f"{result.second.name} against {result.first.name}"
    size = f"{points(c.difference)} points [{points(c.low)}, {points(c.high)}]"
    verdict = "told apart" if total.holm_p < alpha else "not told apart"
    verdict += f" at {whole_percent(alpha)} ({p_text(total.holm_p)})"
    words = f"{total.across}{names}: {size}, {verdict}."
    if c.agreement is not None:
        words += f" Both agree in {whole_percent(c.agreement)} of {n} episodes"
        gap = detectable_paired(n, 1 - c.agreement) if c.agreement < 1 else None
        if gap is None:
            words += "; with so few changes no difference would be found with a chance of 80 %."
        else:
            words += f"; a true difference of {100 * gap:.1f} points would be found with 80 %."
    return words


def notes(result: Versus) -> list[str]:
    """Method, what differs, and the caveats of both arms."""
    shared = {r.episode for r in result.first.rows} & {r.episode for r in result.second.rows}
    counts = f"{len(result.first.rows)} and {len(result.second.rows)}, {len(shared)} of them shared"
    found = [f"Method: {result.total.comparison.method}. Episodes: {counts}."]
    found += [f"Differs: {phrase}." for phrase in result.total.comparison.differs]
    found += [f"{words}." for words in result.only_in_one]
    for arm in (result.first, result.second):
        found += [f"{arm.name}: {caveat}" for caveat in caveats(arm)]
    return found


def text(result: Versus) -> str:
    """One comparison for the terminal."""
    rows = [difference.cells() for difference in (*result.tasks, result.total)]
    warnings = [f"! {note}" for note in notes(result)]
    return "\n".join([conclusion(result), *warnings, text_table(result.head, rows, left=(0, 7))])


def as_json(results: Sequence[Versus], level: float) -> dict[str, Any]:
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
