"""From ReportInputs to report.html."""

import logging
from collections.abc import Mapping
from pathlib import Path

from invact_vla.app.report.experiment_section import experiment_section
from invact_vla.app.report.inputs import ReportInputs
from invact_vla.app.report.labeler_sections import codes_section, encoder_section, samples_section
from invact_vla.app.report.reading import read_optional_json
from invact_vla.app.report.run_sections import (
    curves_section,
    environment_section,
    origin_section,
    videos_section,
)
from invact_vla.core.errors import UserError
from invact_vla.core.files import atomic_file
from invact_vla.html.page import Html, join, page, paragraph
from libero_eval.results import statistics
from libero_eval.results.rows import EpisodeRow, read_episodes

logger = logging.getLogger(__name__)
MAX_BYTES = 15_000_000


def build_report(inputs: ReportInputs, out: Path) -> Path:
    """Write the self-contained report (no script, no external resource) to `out`; returns `out`.

    Parts whose inputs are absent are replaced by a sentence. Raises UserError for variants without
    episodes.jsonl and for damaged files.
    """
    variants = _read({name: variant.rollouts for name, variant in inputs.variants.items()})
    controls = _read(inputs.controls)
    sections = [
        experiment_section(inputs, variants, controls),
        videos_section(inputs, variants, controls),
        encoder_section(inputs),
        codes_section(inputs),
        samples_section(inputs),
        curves_section(inputs),
        environment_section(inputs, variants),
        origin_section(inputs),
    ]
    document = page(inputs.title, _lead(inputs, variants), sections).encode()
    if len(document) > MAX_BYTES:
        logger.warning(
            "the report has %.1f MB: show fewer videos (videos_per_variant) or clips",
            len(document) / 1e6,
        )
    with atomic_file(out) as temporary:
        temporary.write_bytes(document)
    return out


def _read(folders: Mapping[str, Path]) -> dict[str, list[EpisodeRow]]:
    rows = {name: read_episodes(folder) for name, folder in folders.items()}
    for name, found in rows.items():
        if len({row.policy_name for row in found}) > 1:
            raise UserError(
                f"{folders[name]} holds episodes of several variants: give one run a variant"
            )
    return rows


def _lead(inputs: ReportInputs, variants: Mapping[str, list[EpisodeRow]]) -> Html:
    """Two paragraphs: what happened, and what these numbers are not."""
    clauses = []
    for name, rows in variants.items():
        try:
            rate = statistics.rate(rows)
            clauses.append(f"{name} {rate.k}/{rate.n}")
        except statistics.RateRefused:
            errors = sum(row.outcome == "error" for row in rows)
            clauses.append(f"{name} has no rate ({errors} of {len(rows)} episodes are errors)")
    tasks = len({(row.suite, row.task_id) for rows in variants.values() for row in rows})
    suites = ", ".join(sorted({row.suite for rows in variants.values() for row in rows}))
    summary = (
        f"{len(variants)} variants of one small OpenVLA, alike but for the latent-action labels they "
        "were pretrained on, post-trained on the same demonstrations and rolled out in "
        f"{tasks} tasks of {suites or 'LIBERO'}. Successes: {', '.join(clauses)}. "
        f"{_retrieval_clause(inputs)}"
    )
    return join(
        paragraph(" ".join(f"{summary} {inputs.hardware}".split()), "lead"),
        paragraph(_disclaimer(inputs), "warn"),
    )


def _retrieval_clause(inputs: ReportInputs) -> str:
    result = read_optional_json(inputs.encoder / "retrieval.json") if inputs.encoder else None
    if not result:
        return ""
    encoder = next(iter(result["encoders"].values()))
    chance = result["levels"]["scene"]["chance"]
    score = encoder["cross_scene"]["p_at_10"]
    return (
        f"The encoder retrieves the right verb across unseen scenes with P@10 {score:.1f} %, "
        f"{score / chance:.1f} times chance."
        if chance > 0
        else ""
    )


def _disclaimer(inputs: ReportInputs) -> str:
    claims = [
        f"{name} {variant.reported_success_rate:g} %"
        for name, variant in inputs.variants.items()
        if variant.reported_success_rate is not None
    ]
    beside = (
        f" Where the page's own figures stand beside ours ({', '.join(claims)}), they are claims "
        "of the InvAct project page, printed there without intervals, not results of this run."
        if claims
        else ""
    )
    return (
        "These are miniature numbers, not the paper's: models of a few million parameters, "
        "synthetic human video, minutes of training and few episodes. They show that every stage "
        f"works, and say nothing about which method is better at full size.{beside}"
    )
