"""`invact report`: run folders in, `<out>/report.html` out.

As a stage of an experiment, its settings name the folders of other stages (YAML in one line each):

    variants: "{none: {rollouts: {rollout_none}, posttrain: {post_none}, reported_success_rate: 34},
            invact: {rollouts: {rollout_invact}, posttrain: {post_invact}, pretrain: {pre_invact}}}"
    labels: "{invact: {label_invact}/labels_val.parquet, lapa: {label_lapa}/labels_val.parquet}"
    encoder: "{encoder}"
    sample_videos: "{synth}/ssv2"
    stages: "{encoder: {encoder}, laq: {laq}}"
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from invact_vla.app.report import labeler_sections, run_sections
from invact_vla.app.report.experiment_section import experiment, read_named
from invact_vla.app.report.inputs import ReportInputs
from invact_vla.core.errors import UserError
from invact_vla.core.run_folder import open_run
from invact_vla.html.render import write_page
from libero_eval.report.lines import scope_line
from libero_eval.report.run import TEMPLATES as EPISODE_TEMPLATES

logger = logging.getLogger(__name__)
REPORT_FILE = "report.html"
MAX_BYTES = 15_000_000
TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True, kw_only=True)
class ReportConfig(ReportInputs):
    """What the report is made of, and where it goes."""

    out: Path  # run folder; the report is <out>/report.html
    seed: int = 0  # no effect: the report is a function of its inputs
    overwrite: bool = False  # replace a folder that holds something else than a report
    sample_videos: Path | None = None  # root of the labeled videos, to show some
    sample_count: int = 6  # how many


def main(config: ReportConfig) -> Path:
    """Build the report, also if there is one already; prints its path, returns the run folder."""
    absent = [folder for folder in folders_of(config) if not folder.exists()]
    if absent:
        raise UserError(f"no {', '.join(map(str, absent))}: run the stages that make them first")
    parents = {str(n): f for n, f in enumerate(folders_of(config)) if _is_finished(f)}
    is_report = (config.out / REPORT_FILE).exists()
    run = open_run(config.out, config, parents, config.overwrite or is_report, config.seed)
    path = build_report(with_samples(config), run.folder / REPORT_FILE)
    run.finish({"bytes": path.stat().st_size})
    print(path)
    return run.folder


def with_samples(config: ReportConfig) -> ReportConfig:
    """The config with the sample clips chosen."""
    if config.sample_videos is None or not config.labels:
        return config
    clips = labeler_sections.pick_samples(config.labels, config.sample_videos, config.sample_count)
    return replace(config, samples=config.samples + clips)


def build_report(inputs: ReportInputs, out: Path) -> Path:
    """Write the self-contained report (no script, no external resource) to `out`; returns `out`.

    Parts whose inputs are absent are replaced by a sentence. Raises UserError for variants without
    episodes.jsonl and for damaged files.
    """
    variants = read_named({name: variant.rollouts for name, variant in inputs.variants.items()})
    controls = read_named(inputs.controls)
    rows = [row for policy in variants.values() for row in policy.rows]
    write_page(
        out,
        "report.html.j2",
        TEMPLATES,
        EPISODE_TEMPLATES,
        title=inputs.title,
        scope=scope_line(list(variants.values())),
        inputs=inputs,
        tasks=len({(row.suite, row.task_id) for row in rows}),
        suites=", ".join(sorted({row.suite for row in rows})) or "LIBERO",
        experiment=experiment(inputs, variants, controls),
        videos=run_sections.videos({**variants, **controls}, inputs.videos_per_variant),
        encoder=labeler_sections.encoder(inputs),
        codes=labeler_sections.codes(inputs),
        samples=labeler_sections.samples(inputs),
        curves=run_sections.curves(inputs),
        environment=run_sections.environments(variants),
        stages=run_sections.stages(inputs),
    )
    size = out.stat().st_size
    if size > MAX_BYTES:
        logger.warning(
            "the report has %.1f MB: show fewer videos (videos_per_variant) or clips", size / 1e6
        )
    return out


def folders_of(inputs: ReportInputs) -> Iterator[Path]:
    """Every folder and label store that a report reads."""
    for variant in inputs.variants.values():
        yield from filter(None, (variant.rollouts, variant.posttrain, variant.pretrain))
    yield from inputs.controls.values()
    yield from filter(None, (inputs.encoder, inputs.laq, inputs.demos))
    yield from inputs.labels.values()
    yield from inputs.stages.values()


def _is_finished(path: Path) -> bool:
    """Unfinished runs may be looked at; they are just not part of the report's key."""
    return path.is_file() or (path / "done.json").exists()
