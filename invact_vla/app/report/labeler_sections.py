"""Encoder and labels: retrieval with its bounds, code usage, sample clips."""

import math
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from invact_vla.app.report.inputs import (
    ReportInputs,
    SampleClip,
    pictures_of,
    read_optional_json,
)
from invact_vla.core.errors import UserError
from invact_vla.data.label_store import LabelStore, find_videos, read_labels
from invact_vla.data.video.frames import decode_frames
from invact_vla.data.video.video_io import write_video
from invact_vla.html import media
from invact_vla.html.charts import bar_chart
from invact_vla.html.render import Html
from latent_actions.labelers.guard.codebook_usage import code_counts, codebook_stats
from latent_actions.retrieval.metric import DIRECTION_NAMES

SAMPLE_PX = 128
WHOLE_CLIP = 4 << 20  # bytes of a clip that is embedded whole
PAIR_FRAMES = 24  # of a pair that is shown without its clip


def encoder(inputs: ReportInputs) -> dict[str, Any] | None:
    """Retrieval of the encoder's run folder and its pictures; None without them."""
    result = read_optional_json(inputs.encoder / "retrieval.json") if inputs.encoder else None
    if inputs.encoder is None or result is None:
        return None
    bounds = result["levels"]["scene"]
    encoders = result["encoders"]
    own = next(iter(encoders.values()))["cross_scene"]["p_at_10"]
    return {
        "bounds": bounds,
        "meaningful": bounds["oracle"] > bounds["chance"] + 1e-6,
        "p_at_10": own,
        "head": ["encoder", *DIRECTION_NAMES.values()],
        "rows": [
            *([n, *(_score(s.get(d)) for d in DIRECTION_NAMES)] for n, s in encoders.items()),
            *([n, *[f"{bounds[n]:.1f}"] * len(DIRECTION_NAMES)] for n in ("chance", "oracle")),
        ],
        "pictures": pictures(inputs.encoder),
    }


def _score(score: Mapping[str, float] | None) -> str:
    if score is None:
        return "–"
    return f"{score['p_at_10']:.1f} [{score['low']:.0f}, {score['high']:.0f}]"


def pictures(folder: Path) -> dict[str, Html]:
    """Name -> <img> of every PNG of a run folder."""
    return {path.stem: media.picture(path, path.stem) for path in pictures_of(folder)}


def codes(inputs: ReportInputs) -> dict[str, Any] | None:
    """How each labeler uses its codes, from the label stores, and the LAQ's pictures."""
    if not inputs.labels:
        return None
    stores = {name: read_labels(path) for name, path in inputs.labels.items()}
    return {
        "datasets": ", ".join(sorted({store.identity.dataset for store in stores.values()})),
        "rows": [[name, *_usage(store)] for name, store in stores.items()],
        "charts": {name: _histograms(name, store) for name, store in stores.items()},
        "pictures": None if inputs.laq is None else pictures(inputs.laq),
    }


def _usage(store: LabelStore) -> list[str]:
    usage = codebook_stats(store.labels.codes, store.identity.codebook_size)
    bits = store.identity.code_length * math.log2(store.identity.codebook_size)
    return [
        f"{usage.pairs}",
        " ".join(f"{n}/{usage.codebook_size}" for n in usage.usage),
        " ".join(f"{p:.2f}" for p in usage.perplexity),
        f"{usage.joint_entropy_bits:.2f} of {bits:.0f}",
        f"{usage.distinct_tuples}",
        f"{100 * usage.top_tuple_fraction:.1f} %",
    ]


def _histograms(name: str, store: LabelStore) -> list[Html]:
    size = store.identity.codebook_size
    return [
        bar_chart(row / row.sum(), 1 / size, f"uniform, {1 / size:.3g}", f"{name}, position {k}")
        for k, row in enumerate(code_counts(store.labels.codes, size))
    ]


def samples(inputs: ReportInputs) -> list[dict[str, Any]]:
    """Clips with the two frames of their pair and their codes."""
    return [_sample(clip) for clip in inputs.samples]


def _sample(clip: SampleClip) -> dict[str, Any]:
    first, last = decode_frames(clip.video, [clip.frame, clip.frame_end], SAMPLE_PX)
    shown = media.frame(first, "first frame"), media.frame(last, "last frame")
    return {"media": [*shown, _film(clip)], "clip": clip}


def _film(clip: SampleClip) -> Html:
    """The whole clip; the time of the pair alone where the clip is long or browsers do not play it."""
    video = clip.video
    if video.suffix in media.MIME and video.is_file() and video.stat().st_size <= WHOLE_CLIP:
        return media.video(video, clip.text)
    wanted = np.linspace(clip.frame, clip.frame_end, PAIR_FRAMES).round().astype(int)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "pair.mp4"
        write_video(path, decode_frames(video, wanted, SAMPLE_PX), fps=12)
        return media.video(path, clip.text)


def pick_samples(labels: Mapping[str, Path], videos: Path, count: int) -> tuple[SampleClip, ...]:
    """Choose pairs to show: `count` different texts, evenly spaced, labeled by every labeler.

    labels: labeler -> label store of the same pairs. videos: the root of the labeled videos. A
    function of the stores alone.
    """
    stores = {name: read_labels(path) for name, path in labels.items()}
    pairs = {
        name: list(zip(s.path, s.frame.tolist(), s.frame_end.tolist(), strict=True))
        for name, s in stores.items()
    }
    if not stores:
        return ()
    common = set.intersection(*map(set, pairs.values()))
    if not common:
        raise UserError(f"label stores {sorted(labels)} have no pair in common")
    name, first = next(iter(stores.items()))
    texts = dict(zip(pairs[name], first.text, strict=True))
    by_text = {texts[pair]: pair for pair in sorted(common, reverse=True)}  # the first one of each
    chosen = [by_text[text] for text in sorted(by_text)[:: max(1, len(by_text) // count)][:count]]
    found = find_videos(first, videos, [path for path, _, _ in chosen])
    codes = {
        name: dict(zip(pairs[name], stores[name].labels.codes, strict=True)) for name in stores
    }
    return tuple(
        SampleClip(
            text=texts[pair],
            video=found[pair[0]],
            frame=pair[1],
            frame_end=pair[2],
            codes={name: tuple(rows[pair].tolist()) for name, rows in codes.items()},
        )
        for pair in chosen
    )
