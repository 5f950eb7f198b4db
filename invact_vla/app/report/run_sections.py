"""Training curves, rollout videos, environment, and how everything was made."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from invact_vla.app.report.inputs import ReportInputs, curve, read_metrics, read_optional_json
from invact_vla.core.limits import inside, read_text
from invact_vla.html import media
from invact_vla.html.charts import line_chart
from libero_eval.env.tasks import instruction
from libero_eval.report.lines import environment, origin
from libero_eval.report.policies import EvaluatedPolicy
from libero_eval.report.run import Tile, min_distance
from libero_eval.results.rows import EpisodeRow
from libero_eval.rollout.command import find_video

Policies = Mapping[str, EvaluatedPolicy]
MAX_CURVES = 3  # metrics shown per run besides the loss
# shown when a run has them; otherwise the first in alphabetical order
FAVORITES = ("verb_accuracy", "contrast", "r2_vs_copy", "perplexity_min", "perplexity_mean",
             "latent_accuracy", "action_accuracy", "action_l1")  # fmt: skip
NOT_CURVES = ("step", "samples", "seconds", "learning_rate", "loss", "gradient_norm")


def curves(inputs: ReportInputs) -> list[dict[str, Any]]:
    """Encoder and LAQ alone, the two VLA stages with all variants in one chart."""
    variants = inputs.variants.items()
    return [
        _curves("InvAct encoder", {"encoder": inputs.encoder}, MAX_CURVES),
        _curves("LAPA LAQ", {"LAQ": inputs.laq}, MAX_CURVES),
        _curves("Pretraining", {name: variant.pretrain for name, variant in variants}, 2),
        _curves("Post-training", {name: variant.posttrain for name, variant in variants}, 2),
    ]


def _curves(title: str, folders: Mapping[str, Path | None], most: int) -> dict[str, Any]:
    """Charts of the loss and at most `most` metrics that all runs have, one line per run."""
    metrics = {name: read_metrics(folder) for name, folder in folders.items() if folder}
    metrics = {name: rows for name, rows in metrics.items() if rows}
    names = [{name for row in rows for name in row} for rows in metrics.values()]
    known = set.intersection(*names) - set(NOT_CURVES) if names else set()
    chosen = [n for n in FAVORITES if n in known] or sorted(known)
    series = [
        (name, {run: points for run, rows in metrics.items() if (points := curve(rows, name))})
        for name in ["loss", *chosen[:most]]
    ]
    order = list(folders) if len(folders) > 1 else ()
    return {
        "title": title,
        "charts": [line_chart(s, "step", name, order=order) for name, s in series if s],
        "steps": {name: rows[-1] for name, rows in metrics.items()},
        "absent": [name for name, folder in folders.items() if folder is None],
    }


def videos(policies: Policies, most: int) -> dict[str, list[Tile]]:
    """Rollout videos of every policy, successes first, then the episodes that came nearest."""
    return {name: _filmed(policy, most) for name, policy in policies.items()}


def _filmed(policy: EvaluatedPolicy, most: int) -> list[Tile]:
    filmed = [(row, path) for row in policy.rows if (path := find_video(policy.folder, row))]
    filmed.sort(key=lambda item: (item[0].outcome != "success", *min_distance(item[0])))
    return [_tile(row, path) for row, path in filmed[:most]]


def _tile(row: EpisodeRow, path: Path) -> Tile:
    words = f"task {row.task_id}, init state {row.init_index}: {instruction(row.task)}"
    facts = f"{row.steps} steps, {row.goals_best}/{row.goals_total} goals, {words}"
    return Tile(media.video(path, words), row.outcome, facts)


def environments(policies: Policies) -> dict[str, Any]:
    """What each rate was measured under, and the manifest of the first rollout that has one."""
    origins = {name: origin(policy) for name, policy in policies.items()}
    first = next((policy.manifest for policy in policies.values() if policy.manifest), {})
    return {
        "head": ["variant", *next(iter(origins.values()))],
        "rows": [[name, *values.values()] for name, values in origins.items()],
        "manifest": environment(first),
        "others": [name for name, policy in policies.items() if policy.manifest != first],
    }


def stages(inputs: ReportInputs) -> dict[str, Any]:
    """The stages in running order, with their duration, inputs and key, and their configs."""
    rows, total = [], 0.0
    for name, folder in inputs.stages.items():
        done = read_optional_json(folder / "done.json") or {}
        provenance = read_optional_json(folder / "provenance.json") or {}
        seconds = done.get("seconds")
        total += seconds or 0.0
        made_from = ", ".join(provenance.get("inputs", {})) or "–"
        duration = _duration(seconds) if seconds is not None else "–"
        commit = (provenance.get("commit") or "–")[:10]
        rows.append([name, duration, made_from, str(done.get("key", "unfinished")), commit])
    summary = read_optional_json(inputs.demos / "summary.json") if inputs.demos else None
    return {
        "rows": [*rows, ["all", _duration(total), "", "", ""]] if rows else [],
        "demos": summary and [[name, json.dumps(value)] for name, value in summary.items()],
        "configs": {
            name: read_text(path)
            for name, folder in inputs.stages.items()
            if (path := inside(folder, "config.yaml")).exists()
        },
    }


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
