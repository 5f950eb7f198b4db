"""Training curves, rollout videos, environment, and how everything was made."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from invact_vla.app.report.inputs import ReportInputs
from invact_vla.app.report.reading import curve, read_metrics, read_optional_json
from invact_vla.core.limits import inside, read_text
from invact_vla.html import media
from invact_vla.html.charts import line_chart
from invact_vla.html.page import (
    Html,
    Section,
    details,
    figure,
    grid,
    heading,
    join,
    missing,
    paragraph,
    safe,
    table,
    tag,
)
from libero_eval.env.tasks import instruction
from libero_eval.results.rows import EpisodeRow
from libero_eval.rollout.command import find_video

Rows = Mapping[str, Sequence[EpisodeRow]]
MAX_CURVES = 3  # metrics shown per run besides the loss
# shown first when a run has them; otherwise the first others in alphabetical order
FAVOURITES = (
    "verb_accuracy",
    "contrast",
    "skill",
    "perplexity_min",
    "perplexity_mean",
    "latent_accuracy",
    "action_accuracy",
    "action_l1",
)
NOT_CURVES = ("step", "samples", "seconds", "learning_rate", "loss", "gradient_norm")


def curves_section(inputs: ReportInputs) -> Section:
    """Loss curves: encoder and LAQ alone, the two VLA stages with all variants in one chart."""
    parts = [
        _single("InvAct encoder", inputs.encoder),
        _single("LAPA LAQ", inputs.laq),
        _by_variant(
            "Pretraining", {name: variant.pretrain for name, variant in inputs.variants.items()}
        ),
        _by_variant(
            "Post-training", {name: variant.posttrain for name, variant in inputs.variants.items()}
        ),
    ]
    return Section("curves", "Training", join(*parts))


def _single(title: str, folder: Path | None) -> Html:
    rows = read_metrics(folder) if folder else []
    if not rows:
        return join(heading(title), missing("Curves", "no metrics.jsonl was given"))
    names = {name for row in rows for name in row} - set(NOT_CURVES)
    ordered = [n for n in FAVOURITES if n in names] + sorted(names - set(FAVOURITES))
    shown = [n for n in ["loss", *ordered[:MAX_CURVES]] if curve(rows, n)]
    charts = [Html(f"<div>{line_chart({n: curve(rows, n)}, 'step', n)}</div>") for n in shown]
    return join(heading(title), _cost(rows), Html(f'<div class="charts">{"".join(charts)}</div>'))


def _by_variant(title: str, folders: Mapping[str, Path | None]) -> Html:
    metrics = {name: read_metrics(folder) for name, folder in folders.items() if folder}
    metrics = {name: rows for name, rows in metrics.items() if rows}
    if not metrics:
        return join(heading(title), missing("Curves", "no variant has a metrics.jsonl"))
    shared = set.intersection(*({n for row in rows for n in row} for rows in metrics.values()))
    extra = [n for n in FAVOURITES if n in shared][:2]
    charts = []
    for name in ["loss", *extra]:
        series = {
            variant: curve(rows, name) for variant, rows in metrics.items() if curve(rows, name)
        }
        if series:
            chart = line_chart(series, "step", name, order=list(folders))
            charts.append(f"<div>{chart}</div>")
    absent = [name for name, folder in folders.items() if folder is None]
    note = (
        paragraph(f"Without {title.lower()}: {', '.join(absent)}.", "soft") if absent else Html("")
    )
    return join(heading(title), note, Html(f'<div class="charts">{"".join(charts)}</div>'))


def _cost(rows: Sequence[Mapping[str, float]]) -> Html:
    last = rows[-1]
    words = [f"{last['step']:,.0f} steps"]
    if "samples" in last:
        words.append(f"{last['samples']:,.0f} samples")
    return paragraph(", ".join(words) + ".", "soft")


def videos_section(inputs: ReportInputs, variants: Rows, controls: Rows) -> Section:
    """Rollout videos, successes first, then the episodes that came nearest."""
    folders = {name: variant.rollouts for name, variant in inputs.variants.items()} | dict(
        inputs.controls
    )
    parts = []
    for name, rows in {**variants, **controls}.items():
        filmed = [(row, path) for row in rows if (path := find_video(folders[name], row))]
        filmed.sort(key=lambda item: _interest(item[0]))
        shown = filmed[: inputs.videos_per_variant]
        parts.append(heading(name))
        if shown:
            parts.append(grid([_video(row, path) for row, path in shown], 165))
        else:
            parts.append(missing("Videos", "no episode of this variant was filmed"))
    return Section("videos", "Rollouts on camera", join(*parts))


def _interest(row: EpisodeRow) -> tuple[bool, float, float]:
    share = row.goals_best / row.goals_total if row.goals_total else 0.0
    distance = row.closest_m if row.closest_m is not None else 9.0
    return row.outcome != "success", -share, distance


def _video(row: EpisodeRow, path: Path) -> Html:
    words = f"task {row.task_id}, init state {row.init_index}: {instruction(row.task)}"
    facts = f"{row.steps} steps, {row.goals_best}/{row.goals_total} goals"
    caption = Html(f"{tag(row.outcome)} {safe(facts)}<br>{safe(words)}")
    return figure(media.video(path, words), caption)


def environment_section(inputs: ReportInputs, variants: Rows) -> Section:
    """Manifests of the rollouts, and the protocol, pack and checkpoint of each variant."""
    lines = []
    for name, rows in variants.items():
        columns = [
            _all_of(rows, field)
            for field in ("protocol", "protocol_hash", "pack", "pack_hash", "manifest_hash",
                          "checkpoint_hash", "seed")
        ]  # fmt: skip
        lines.append([name, *columns])
    head = ["variant", "protocol", "hash", "assets", "hash", "environment", "checkpoint", "seed"]
    parts = [table(head, lines, caption="What each rate was measured under", numeric_from=9)]
    manifests = {
        name: read_optional_json(variant.rollouts / "manifest.json")
        for name, variant in inputs.variants.items()
    }
    first = next((m for m in manifests.values() if m), None)
    if first is None:
        parts.append(missing("Environment manifest", "no manifest.json beside the episodes"))
        return Section("environment", "Environment", join(*parts))
    if any(m != first for m in manifests.values()):
        different = ", ".join(name for name, m in manifests.items() if m != first)
        parts.append(
            paragraph(f"Not all variants ran in one environment: {different} differ.", "warn")
        )
    flat = {k: v for k, v in first.items() if k != "packages"} | first.get("packages", {})
    rows_ = [[name, str(value)] for name, value in flat.items()]
    parts.append(details("Environment manifest", table(["item", "value"], rows_, numeric_from=2)))
    return Section("environment", "Environment", join(*parts))


def _all_of(rows: Sequence[EpisodeRow], field: str) -> str:
    return ", ".join(sorted({str(getattr(row, field)) for row in rows})) or "–"


def origin_section(inputs: ReportInputs) -> Section:
    """The stages in running order, with their duration, key and inputs."""
    title = "How it was made"
    if not inputs.stages:
        return Section("origin", title, missing("Stages", "no run folders were given"))
    lines, total = [], 0.0
    for name, folder in inputs.stages.items():
        done = read_optional_json(folder / "done.json") or {}
        provenance = read_optional_json(folder / "provenance.json") or {}
        seconds = done.get("seconds")
        total += seconds or 0.0
        inputs = ", ".join(provenance.get("inputs", {})) or "–"
        commit = (provenance.get("commit") or "–")[:10]
        key = Html(f"<code>{safe(str(done.get('key', 'unfinished')))}</code>")
        duration = _duration(seconds) if seconds is not None else "–"
        lines.append([name, duration, inputs, key, Html(f"<code>{safe(commit)}</code>")])
    lines.append(["all", _duration(total), "", "", ""])
    head = ["stage", "time", "made from", "key", "commit"]
    caption = "Stages in running order; some ran side by side, so the wall clock showed less."
    parts = [table(head, lines, caption=caption, numeric_from=5, has_total=True)]
    summary = read_optional_json(inputs.demos / "summary.json") if inputs.demos else None
    if summary is None:
        parts.append(missing("Demonstrations", "no summary of them was given"))
    else:
        rows = [[name, _plain(value)] for name, value in summary.items()]
        parts.append(details("Demonstrations", table(["item", "value"], rows, numeric_from=2)))
    configs = [
        details(f"config of {name}", Html(f"<pre class=mono>{safe(read_text(path))}</pre>"))
        for name, folder in inputs.stages.items()
        if (path := inside(folder, "config.yaml")).exists()
    ]
    return Section("origin", title, join(*parts, *configs))


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_plain(part)}" for key, part in value.items())
    if isinstance(value, list):
        return ", ".join(_plain(part) for part in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
