"""From ReportInputs to report.html."""

import logging
from pathlib import Path

from invact_vla.app.report import labeler_sections, run_sections
from invact_vla.app.report.experiment_section import experiment, read_named
from invact_vla.app.report.inputs import ReportInputs
from invact_vla.html.render import write_page
from libero_eval.report.lines import scope_line
from libero_eval.report.run import TEMPLATES as EPISODE_TEMPLATES

logger = logging.getLogger(__name__)
MAX_BYTES = 15_000_000
TEMPLATES = Path(__file__).parent / "templates"


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
