"""The ladder: success and progress of each variant, paired differences, and what they are worth."""

from collections.abc import Sequence
from itertools import combinations
from statistics import mean, median

from invact_vla import stats
from invact_vla.app.report.inputs import ReportInputs
from invact_vla.core.errors import UserError
from invact_vla.html.charts import Interval, interval_chart
from invact_vla.html.page import (
    Html,
    Section,
    details,
    heading,
    join,
    paragraph,
    safe,
    table,
)
from libero_eval.env.tasks import instruction
from libero_eval.results import statistics
from libero_eval.results.rows import EpisodeRow, by_task

Rows = dict[str, list[EpisodeRow]]
PAGE_EPISODES = 150  # a variant: the page's bars are multiples of 1/15, on ten tasks


def experiment_section(inputs: ReportInputs, variants: Rows, controls: Rows) -> Section:
    """variants, controls: rows by name, as read from their episodes.jsonl."""
    parts = [
        _chart(variants, controls),
        paragraph(
            "Success is LIBERO's own goal check, counted only on episodes that ran to their end; "
            "brackets are 95 % Wilson intervals. An episode that crashed is an error, not a "
            "failure, and a variant with errors has no rate."
        ),
        _per_task(variants, controls),
        _variants_table(inputs, variants),
        _errors(variants | controls),
        heading("Are the variants different?"),
        _differences(variants),
        _power_sentence(variants),
        heading("Progress below success"),
        paragraph(
            "Small policies rarely finish a task of two subgoals, so partial progress is shown "
            "too: the share of goal predicates true at once at the best moment, at the end, and "
            "the smallest distance between the gripper and an object of the goal."
        ),
        _progress(variants | controls),
        _progress_differences(variants),
    ]
    return Section("ladder", "The ladder", join(*parts))


def percent(fraction: float) -> str:
    """12.3 %."""
    return f"{100 * fraction:.1f} %"


def rate_text(rows: Sequence[EpisodeRow]) -> str:
    """k/n, or what is in the way."""
    errors = sum(row.outcome == "error" for row in rows)
    if errors:
        return f"{errors} of {len(rows)} errors"
    return f"{sum(row.outcome == 'success' for row in rows)}/{len(rows)}" if rows else "–"


def _signed(value: float, low: float, high: float) -> str:
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"


def _interval_text(rows: Sequence[EpisodeRow]) -> str:
    try:
        rate = statistics.rate(rows)
    except statistics.RateRefused:
        return f"no rate: {rate_text(rows)}" if rows else "no rate: no episodes"
    return f"{percent(rate.value)}  [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"


def _chart(variants: Rows, controls: Rows) -> Html:
    intervals = []
    for name, rows in {**variants, **controls}.items():
        try:
            rate = statistics.rate(rows)
        except statistics.RateRefused:
            continue
        label = f"{rate.k}/{rate.n} = {percent(rate.value)}"
        intervals.append(Interval(name, 100 * rate.value, 100 * rate.low, 100 * rate.high, label))
    return interval_chart(intervals, "Success with 95 % intervals") if intervals else Html("")


def _per_task(variants: Rows, controls: Rows) -> Html:
    names = [*variants, *controls]
    groups = {name: by_task(rows) for name, rows in (variants | controls).items()}
    tasks = sorted({task for group in groups.values() for task in group})
    titles = {row.task_id: row.task for rows in (variants | controls).values() for row in rows}
    lines = []
    for task in tasks:
        cells = [rate_text(groups[name].get(task, [])) for name in names]
        lines.append([f"{task[1]}  {instruction(titles[task[1]])}", *cells])
    lines.append(["all", *(rate_text((variants | controls)[name]) for name in names)])
    return table(["task", *names], lines, caption="Successes / episodes, per task", has_total=True)


def _variants_table(inputs: ReportInputs, variants: Rows) -> Html:
    lines = []
    for name, rows in variants.items():
        claim = inputs.variants[name].reported_success_rate
        claimed = "–" if claim is None else f"{claim:g} %"
        cells = [rate_text(rows), _interval_text(rows), claimed]
        lines.append([name, inputs.variants[name].start or "–", *cells])
    return table(
        ["variant", "starts from", "k/n", "success [95 %]", "project page"],
        lines,
        caption="The variants. The last column is what the InvAct project page states for the "
        f"full-size experiment (no interval given, about {PAGE_EPISODES} episodes a variant); it is a "
        "claim of that page, not a result of this run.",
        numeric_from=2,
    )


def _differences(variants: Rows) -> Html:
    lines, refusals = [], []
    for first, second in combinations(variants, 2):
        try:
            result = statistics.compare(variants[first], variants[second])
        except UserError as refused:
            refusals.append(paragraph(f"{second} − {first}: {refused}", "warn"))
            continue
        pairs = f"{result.only_second} : {result.only_first}" if result.is_paired else "not paired"
        lines.append(
            [
                f"{second} − {first}",
                _signed(100 * result.difference, 100 * result.low, 100 * result.high),
                pairs,
                f"{result.p_value:.3f}" if result.p_value >= 0.001 else "< 0.001",
                "yes" if result.p_value < 0.05 else "no",
            ]
        )
    if not lines:
        return join(*refusals)
    head = ["difference", "points [95 %]", "won : lost", "p", "distinguished at 5 %"]
    caption = (
        "Differences of success, paired by (task, init state): bootstrap over pairs (Tango's score "
        "interval where fewer than ten pairs differ), McNemar's exact test on the pairs that one "
        "variant won and the other lost. Not corrected for several comparisons."
    )
    return join(table(head, lines, caption=caption), *refusals)


def _power_sentence(variants: Rows) -> Html:
    n = min(len(rows) for rows in variants.values())
    if n == 0:
        return Html("")
    needed, chance = stats.required_n(0.44, 0.52), stats.power(0.44, 0.52, n)
    return paragraph(
        f"What {n} episodes a variant can show: a true difference as large as the page's 44 against "
        f"52 % would be found with a probability of {chance:.0%} only (unpaired); {needed} "
        "episodes a variant find it with 80 %. Differences between training seeds come on top."
    )


def _progress(groups: Rows) -> Html:
    lines = []
    for name, rows in groups.items():
        ended = [row for row in rows if row.outcome != "error" and row.goals_total]
        if not ended:
            lines.append([name, "–", "–", "–", "–"])
            continue
        near = [row.closest_m for row in ended if row.closest_m is not None]
        steps = [row.steps for row in ended if row.outcome == "success"]
        lines.append(
            [
                name,
                percent(mean(row.goals_best / row.goals_total for row in ended)),
                percent(mean(row.goals_satisfied / row.goals_total for row in ended)),
                f"{100 * median(near):.1f} cm" if near else "–",
                f"{median(steps):.0f}" if steps else "–",
            ]
        )
    head = [
        "variant",
        "goals, best moment",
        "goals, at the end",
        "closest approach",
        "steps to success",
    ]
    return table(head, lines, caption="Means of goals, medians of distance and steps")


def _errors(groups: Rows) -> Html:
    """Every episode that ended as an error, with its reason."""
    lines = [
        [
            name,
            f"{row.task_id}",
            f"{row.init_index}",
            Html(f"<pre>{safe(row.reason.strip())}</pre>"),
        ]
        for name, rows in groups.items()
        for row in rows
        if row.outcome == "error"
    ]
    if not lines:
        return Html("")
    head = ["variant", "task", "init state", "reason"]
    return details(f"{len(lines)} episodes ended as errors", table(head, lines, numeric_from=4))


def _known(distance: float | None) -> float:
    if distance is None:
        raise UserError("an episode without a closest approach")
    return distance


def _progress_differences(variants: Rows) -> Html:
    measures = {
        "goals, best moment (points)": lambda row: 100 * row.goals_best / max(row.goals_total, 1),
        "closest approach (cm)": lambda row: 100 * _known(row.closest_m),
    }
    lines = []
    for first, second in combinations(variants, 2):
        cells = []
        for value in measures.values():
            try:
                result = statistics.compare_means(variants[first], variants[second], value)
            except UserError:
                cells.append("–")
                continue
            cells.append(_signed(result.difference, result.low, result.high))
        lines.append([f"{second} − {first}", *cells])
    if not lines:
        return Html("")
    return table(
        ["difference", *measures], lines, caption="Paired differences of progress, mean [95 %]"
    )
