"""The experiment: success and progress of each variant, paired differences, and what they are worth."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from math import isnan, nan
from pathlib import Path
from typing import Any

from invact_vla.app.report.inputs import ReportInputs
from invact_vla.core.errors import UserError
from invact_vla.core.text_table import p_text, points
from invact_vla.html.charts import Interval, interval_chart
from invact_vla.html.render import Html
from invact_vla.stats import power
from libero_eval.report.comparison import compare_policies
from libero_eval.report.lines import TOTAL, Line, lines_of
from libero_eval.report.policies import EvaluatedPolicy, read_policy
from libero_eval.report.run import error_rows
from libero_eval.results import statistics

Policies = Mapping[str, EvaluatedPolicy]


def read_named(folders: Mapping[str, Path]) -> dict[str, EvaluatedPolicy]:
    """Rollouts under the names that the report gives them. UserError for a folder without episodes."""
    return {name: replace(read_policy(folder), name=name) for name, folder in folders.items()}


def experiment(inputs: ReportInputs, variants: Policies, controls: Policies) -> dict[str, Any]:
    """What the template shows of the variants and controls."""
    lines = {name: lines_of(policy) for name, policy in {**variants, **controls}.items()}
    totals = {name: found[-1] for name, found in lines.items()}
    n = min(len(policy.rows) for policy in variants.values())
    return {
        "totals": totals,
        "chart": _chart(totals),
        "tasks": _per_task(lines),
        "variants": [_variant(inputs, name, totals[name]) for name in variants],
        "errors": [
            [name, *cells]
            for name, policy in {**variants, **controls}.items()
            for cells in error_rows(policy.rows)
        ],
        "n": n,
        "power": power.power(0.44, 0.52, n),
        "needed": power.required_n(0.44, 0.52),
        "progress": [[name, *line.progress] for name, line in totals.items()],
        **_differences(variants),
    }


def _chart(totals: Mapping[str, Line]) -> Html:
    intervals = [
        Interval(name, 100 * rate.value, 100 * rate.low, 100 * rate.high, f"{rate.k}/{rate.n}")
        for name, line in totals.items()
        if (rate := line.rate) is not None
    ]
    if not intervals:
        return Html("")
    title = "Success with 95 % intervals"
    return interval_chart(intervals, title, "success (%)", "success with 95 % interval", end=100)


def _per_task(lines: Mapping[str, list[Line]]) -> list[list[str]]:
    counts = {name: {line.label: line.counts for line in found} for name, found in lines.items()}
    titles = {line.label: line.instruction for found in lines.values() for line in found}
    titles[TOTAL] = titles.pop(TOTAL)  # the last row
    return [
        [f"{label}  {title}", *(counts[name].get(label, "–") for name in lines)]
        for label, title in titles.items()
    ]


def _variant(inputs: ReportInputs, name: str, line: Line) -> list[str]:
    claim = inputs.variants[name].reported_success_rate
    claimed = "–" if claim is None else f"{claim:g} %"
    return [name, inputs.variants[name].start or "–", line.counts, line.rate_text, claimed]


def _differences(variants: Policies) -> dict[str, Any]:
    """Each later variant minus each earlier one. differences: empty where no pair of variants
    differs in enough episodes for any difference to be significant."""
    rows, progress, refusals, decidable = [], [], [], []
    for first, second in combinations(variants.values(), 2):
        name = f"{second.name}\xa0−\xa0{first.name}"
        try:
            [result] = compare_policies([first, second])
        except UserError as refused:
            refusals.append(f"{name}: {refused}")
            continue
        p = result.total.comparison.p_value
        cells = [result.total.size, result.total.discordant, p_text(p, "")]
        rows.append([name, *cells, "yes" if p < 0.05 else "no"])
        progress.append(
            [name, *(_mean_change(first, second, value) for value in MEASURES.values())]
        )
        decidable.append(result.is_decidable)
    if not any(decidable):
        rows, progress = [], []
    return {
        "differences": rows,
        "compared": bool(decidable),
        "refusals": refusals,
        "measures": list(MEASURES),
        "changes": progress,
    }


MEASURES = {
    "goals, best moment (percentage points)": lambda row: row.goals_best / max(row.goals_total, 1),
    "closest approach (cm)": lambda row: nan if row.closest_m is None else row.closest_m,
}


def _mean_change(first: EvaluatedPolicy, second: EvaluatedPolicy, value: Any) -> str:
    """Mean paired change times 100; a dash for other episodes or one without the measure."""
    try:
        found = statistics.compare_means(first.rows, second.rows, value)
    except UserError:
        return "–"
    words = f"{points(found.difference)} [{points(found.low)}, {points(found.high)}]"
    return "–" if isnan(found.difference) else words
