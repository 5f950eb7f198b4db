"""`invact report`: run folders in, `<out>/report.html` out.

As a stage of an experiment, its settings name the folders of other stages (YAML in one line each):

    variants: "{none: {rollouts: {rollout_none}, posttrain: {post_none}, reported_success_rate: 34},
            invact: {rollouts: {rollout_invact}, posttrain: {post_invact}, pretrain: {pre_invact}}}"
    labels: "{invact: {label_invact}/labels_val.parquet, lapa: {label_lapa}/labels_val.parquet}"
    encoder: "{encoder}"
    sample_videos: "{synth}/ssv2"
    stages: "{encoder: {encoder}, laq: {laq}}"
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

from invact_vla.app.report.build import build_report
from invact_vla.app.report.inputs import ReportInputs
from invact_vla.app.report.labeler_sections import pick_samples
from invact_vla.core.errors import UserError
from invact_vla.core.run_folder import open_run

REPORT_FILE = "report.html"


@dataclass(frozen=True, kw_only=True)
class ReportConfig(ReportInputs):
    """What the report is made of, and where it goes."""

    out: Path  # run folder; the report is <out>/report.html
    seed: int = 0  # no effect: the report is a function of its inputs
    overwrite: bool = False  # replace a folder that holds something else than a report
    sample_videos: Path | None = None  # root of the labeled videos, to show some
    sample_count: int = 6  # how many

    def inputs(self) -> ReportInputs:
        """The inputs alone, with the sample clips chosen."""
        given = {field.name: getattr(self, field.name) for field in fields(ReportInputs)}
        inputs = ReportInputs(**given)
        if self.sample_videos is None or not self.labels:
            return inputs
        clips = pick_samples(self.labels, self.sample_videos, self.sample_count)
        return replace(inputs, samples=inputs.samples + clips)


def main(config: ReportConfig) -> Path:
    """Build the report, also if there is one already; prints its path, returns the run folder."""
    inputs = config.inputs()
    absent = [folder for folder in folders_of(inputs) if not folder.exists()]
    if absent:
        raise UserError(f"no {', '.join(map(str, absent))}: run the stages that make them first")
    parents = {str(n): f for n, f in enumerate(folders_of(inputs)) if _is_finished(f)}
    is_report = (config.out / REPORT_FILE).exists()
    run = open_run(config.out, config, parents, config.overwrite or is_report, config.seed)
    path = build_report(inputs, run.folder / REPORT_FILE)
    run.finish({"bytes": path.stat().st_size})
    print(path)
    return run.folder


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
