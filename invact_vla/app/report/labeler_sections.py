"""Encoder and labels: retrieval with its levels, code usage, sample clips."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from invact_vla.app.report.inputs import ReportInputs, SampleClip
from invact_vla.app.report.reading import pictures_of, read_optional_json
from invact_vla.core.errors import UserError
from invact_vla.data.label_store import LabelStore, read_labels
from invact_vla.data.label_videos import find_videos
from invact_vla.data.video.frames import decode_frames
from invact_vla.html import media
from invact_vla.html.charts import bar_chart
from invact_vla.html.page import (
    Html,
    Section,
    code_chips,
    figure,
    grid,
    heading,
    join,
    missing,
    paragraph,
    safe,
    table,
)
from latent_actions.labelers.codebook_usage import code_counts, codebook_stats

DIRECTIONS = {
    "g-g": "ego → ego",
    "x-x": "exo → exo",
    "cross_scene": "cross-scene",
    "g-x": "ego → exo",
    "x-g": "exo → ego",
    "cross_view": "cross-view",
}
SAMPLE_PX = 128


def encoder_section(inputs: ReportInputs) -> Section:
    """Retrieval of the encoder's run folder, and its pictures."""
    title = "Does the encoder see the action?"
    result = read_optional_json(inputs.encoder / "retrieval.json") if inputs.encoder else None
    if inputs.encoder is None or result is None:
        return Section("encoder", title, missing("Retrieval", "no retrieval.json was given"))
    pictures = [
        figure(media.picture(path, path.stem), _picture_caption(path))
        for path in pictures_of(inputs.encoder)
    ]
    body = join(
        paragraph(
            "Precision at 10: of the ten clips nearest to a query, how many show the same verb. "
            "The query's whole scene is left out of the gallery, and the scenes were never trained "
            "on. Chance is a random order, the oracle a perfect one."
        ),
        _retrieval_table(result),
        grid(pictures, 420) if pictures else Html(""),
    )
    return Section("encoder", title, body)


def _retrieval_table(result: Mapping[str, Any]) -> Html:
    scene = result["levels"]["scene"]
    lines = []
    for name, scores in result["encoders"].items():
        cells = [_score(scores.get(direction)) for direction in DIRECTIONS]
        lines.append([name, *cells])
    lines.append(["chance", *[f"{scene['chance']:.1f}"] * len(DIRECTIONS)])
    lines.append(["oracle", *[f"{scene['oracle']:.1f}"] * len(DIRECTIONS)])
    caption = (
        f"P@10 in percent [95 % over takes], {scene['n']} queries in {scene['groups']} scenes; "
        f"{scene['answerable']:.0f} % of the queries have an answer elsewhere"
    )
    return table(["encoder", *DIRECTIONS.values()], lines, caption=caption)


def _score(score: Mapping[str, float] | None) -> str:
    if score is None:
        return "–"
    return f"{score['p_at_10']:.1f} [{score['low']:.0f}, {score['high']:.0f}]"


def _picture_caption(path: Path) -> str:
    known = {
        "committed": "Clips and, below each, the patches that the action token holds (orange); "
        "other patches are dimmed in the color of their register.",
    }
    return known.get(path.stem, path.stem.replace("_", " "))


def codes_section(inputs: ReportInputs) -> Section:
    """How each labeler uses its codes, from the label stores, and the LAQ's pictures."""
    title = "Are the codes used?"
    if not inputs.labels:
        return Section("codes", title, missing("Code usage", "no label store was given"))
    stores = {name: read_labels(path) for name, path in inputs.labels.items()}
    lines, charts = [], []
    for name, store in stores.items():
        health = codebook_stats(store.labels.codes, store.identity.codebook_size)
        bits = store.identity.code_length * math.log2(store.identity.codebook_size)
        lines.append(
            [
                name,
                f"{health.pairs}",
                " ".join(f"{n}/{health.codebook_size}" for n in health.usage),
                " ".join(f"{p:.2f}" for p in health.perplexity),
                f"{health.joint_entropy_bits:.2f} of {bits:.0f}",
                f"{health.distinct_tuples}",
                f"{100 * health.top_tuple_fraction:.1f} %",
            ]
        )
        charts.append(_histograms(name, store))
    head = ["labeler", "pairs", "codes used, by position", "perplexity, by position",
            "joint entropy, bits", "distinct labels", "most frequent"]  # fmt: skip
    body = join(
        paragraph(
            "Every labeler gives the same pairs the same number of codes from a codebook of the "
            "same size, so that variants differ in the labels alone. Perplexity is the number of codes "
            "in effective use; a labeler that collapses shows 1."
        ),
        table(
            head, lines, caption=", ".join(sorted({s.identity.dataset for s in stores.values()}))
        ),
        *charts,
        *_laq_pictures(inputs),
    )
    return Section("codes", title, body)


def _histograms(name: str, store: LabelStore) -> Html:
    size = store.identity.codebook_size
    counts = code_counts(store.labels.codes, size)
    charts = [
        figure(bar_chart(row / row.sum(), 1 / size, f"{name}, position {k}"), f"position {k}")
        for k, row in enumerate(counts)
    ]
    return join(heading(name), grid(charts, 180))


def _laq_pictures(inputs: ReportInputs) -> list[Html]:
    if inputs.laq is None:
        return [missing("LAQ reconstructions", "no LAQ run was given")]
    figures = [
        figure(media.picture(path, path.stem), f"LAQ: {path.stem.replace('_', ' ')}")
        for path in pictures_of(inputs.laq)
    ]
    return [heading("What the LAQ predicts"), grid(figures, 420)] if figures else []


def samples_section(inputs: ReportInputs) -> Section:
    """Clips with the two frames of their pair and their codes."""
    title = "Clips and their codes"
    if not inputs.samples:
        return Section("clips", title, missing("Sample clips", "none were given"))
    body = join(
        paragraph(
            "Pairs from the labeled videos: the first and the last frame of the pair, the whole "
            "clip, and what each labeler writes for it."
        ),
        grid([_sample(clip) for clip in inputs.samples], 250),
    )
    return Section("clips", title, body)


def _sample(clip: SampleClip) -> Html:
    first, last = decode_frames(clip.video, [clip.frame, clip.frame_end], SAMPLE_PX)
    pair = join(media.frame(first, "first frame"), media.frame(last, "last frame"))
    codes = "".join(
        f"<br>{code_chips(values)} <span class=soft>{safe(name)}</span>"
        for name, values in clip.codes.items()
    )
    return Html(
        f'<figure><div class="pair">{pair}{media.video(clip.video, clip.text)}</div>'
        f"<figcaption>{safe(clip.text)}{codes}</figcaption></figure>"
    )


def pick_samples(labels: Mapping[str, Path], videos: Path, count: int) -> tuple[SampleClip, ...]:
    """Choose pairs to show: `count` different texts, evenly spaced, labeled by every labeler.

    labels: labeler -> label store of the same pairs. videos: the root of the labeled videos. A
    function of the stores alone.
    """
    stores = {name: read_labels(path) for name, path in labels.items()}
    tables = {
        name: {
            (path, int(frame), int(end)): (text, tuple(int(c) for c in codes))
            for path, frame, end, text, codes in zip(
                s.path, s.frame, s.frame_end, s.text, s.labels.codes, strict=True
            )
        }
        for name, s in stores.items()
    }
    if not tables:
        return ()
    common = set.intersection(*(set(rows) for rows in tables.values()))
    if not common:
        raise UserError(f"label stores {sorted(labels)} have no pair in common")
    by_text: dict[str, tuple[str, int, int]] = {}
    for key in sorted(common):
        by_text.setdefault(next(iter(tables.values()))[key][0], key)
    texts = sorted(by_text)
    chosen = texts[:: max(1, len(texts) // count)][:count]
    shown = [by_text[text][0] for text in chosen]
    found = find_videos(next(iter(stores.values())), videos, shown)
    return tuple(
        SampleClip(
            text=text,
            video=found[by_text[text][0]],
            frame=by_text[text][1],
            frame_end=by_text[text][2],
            codes={name: rows[by_text[text]][1] for name, rows in tables.items()},
        )
        for text in chosen
    )
