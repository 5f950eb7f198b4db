"""The page: a verdict, one table, then each measurement with its reference values."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from invact_vla.html import media
from invact_vla.html.charts import Interval, bar_chart, interval_chart, line_chart
from invact_vla.html.render import Html, write_page
from latent_actions.report.action_probes import CODES, FIRST, RANDOM, TRUE, Actions
from latent_actions.report.agreement import Agreement, Leakage
from latent_actions.report.gallery import CodeClips
from latent_actions.report.meaning import MOVES, Meaning
from latent_actions.report.measure import Measured, Transfer
from latent_actions.report.probes import Estimate
from latent_actions.report.reconstruction import Reconstruction
from latent_actions.report.truth import FRAMES
from latent_actions.report.usage import Usage
from latent_actions.report.verdict import MARKS, UNKNOWN, Mark, Verdict, rounded

TEMPLATES = Path(__file__).parent / "templates"
PICTURE_BYTES = 6 << 20  # of all moving pictures of a page
CLASSES = {"pass": "success", "fail": "failure", UNKNOWN: "unknown"}
Table = dict[str, Any]


def write_report_page(
    path: Path, measured: Sequence[Measured], compared: Sequence[Measured],
    verdicts: Sequence[Verdict], transfers: Sequence[Transfer],
) -> Path:  # fmt: skip
    """Write the document; returns `path`. compared: the stores with repetitions as one (seeds.py)."""
    return write_page(
        path,
        "latent.html.j2",
        TEMPLATES,
        title="Latent actions: does a code mean an action?",
        scope="",
        verdicts=verdicts,
        overview=overview(compared),
        each_seed=overview(measured) if len(compared) < len(measured) else None,
        marks=mark_table(compared),
        reasons=[(mark.name, mark.reason) for mark in MARKS],
        usage=_part(measured, "usage", _usage),
        reconstruction=_part(measured, "reconstruction", _reconstruction),
        actions=_part(measured, "actions", partial(_actions, _frames(measured))),
        action_chart=_action_chart(compared),
        budget_chart=_budget_chart(compared),
        frames=[(frame, FRAMES[frame]) for frame in _frames(measured)],
        action_head=["labeler", *_frames(measured), "gain over first frame", "pairs", "videos"],
        agreement=_agreement_table(measured),
        leakage=_leakage_table(measured),
        meaning=_part(measured, "meaning", _meaning),
        moves=", ".join(MOVES),
        transfers=[[t.human, t.robot, *map(cell, t.correlation)] for t in transfers],
        clips=_clips(measured),
        cannot=_unknown(measured),
        notes=[
            (m.name, note) for m in measured for note in (*m.labeled.notes, *_missing(m), *m.broken)
        ],
    )


def overview(measured: Sequence[Measured]) -> Table:
    """A row per labeler, then what uniform codes and true actions reach."""
    head = [
        "labeler", "R2 of true actions", "other place", "other view", "tells the place",
        "tells the camera", "lowest perplexity", "joint entropy, bits", "pass / fail / unknown",
    ]  # fmt: skip
    return {"head": head, "rows": [_overview_row(m) for m in measured] + _reference_rows(measured)}


def cell(estimate: Estimate | None, digits: int = 2) -> Html:
    """A number above its interval, or a dash."""
    if estimate is None or np.isnan(estimate.value):
        return Html("–")
    value, low, high = (rounded(v, digits) for v in (estimate.value, estimate.low, estimate.high))
    return Html("{} <small>[{}, {}]</small>").format(value, low, high)


def mark_table(measured: Sequence[Measured]) -> Table:
    """A row per mark, a column per labeler: pass, fail, or cannot be said, and the number."""
    rows = [[mark.name, mark.asks, *(_judged(mark, m) for m in measured)] for mark in MARKS]
    return {"head": ["mark", "asks", *(m.name for m in measured)], "rows": rows}


def _judged(mark: Mark, measured: Measured) -> Html:
    """The outcome above the number that was judged."""
    outcome, estimate = mark.judge(measured)
    number = cell(estimate).striptags() if estimate is not None else "not measured"
    values = CLASSES[outcome], outcome, number
    return Html('<span class="tag {}">{}</span> <small>{}</small>').format(*values)


def _overview_row(m: Measured) -> list[Any]:
    outcomes = [mark.judge(m)[0] for mark in MARKS]
    usage, unknown = m.usage, [Html("–"), Html("–")]
    if not isinstance(usage, str):
        lowest = min(usage.perplexity, key=lambda e: e.value)
        unknown = [cell(lowest, 1), cell(usage.entropy, 1)]
    parts = {"actions": "headline", "elsewhere": "normalized", "view": "normalized"}
    parts |= {"place": "told", "camera": "told"}
    found = [(getattr(m, part), name) for part, name in parts.items()]
    return [
        m.name,
        *(Html("–") if isinstance(v, str) else cell(getattr(v, name)) for v, name in found),
        *unknown,
        " / ".join(str(outcomes.count(outcome)) for outcome in CLASSES),
    ]


def _reference_rows(measured: Sequence[Measured]) -> list[list[Any]]:
    """What codes without meaning have on the pairs of the first store with true actions, and what the
    true actions have, cut into as many codes."""
    known = next((m for m in measured if not isinstance(m.actions, str)), None)
    if known is None or isinstance(known.actions, str) or isinstance(known.usage, str):
        return []
    scores, usage = known.actions.scores[known.actions.best], known.usage
    size, bits = usage.stats.codebook_size, f"{usage.random_entropy:.1f}"
    rows = [["uniform codes", cell(scores[RANDOM].mean), *["0"] * 4, f"{size}", bits, ""]]
    if TRUE in scores:
        rows.append(["true actions as codes", cell(scores[TRUE].mean), *[""] * 7])
    return [[Html("<i>{}</i>").format(row[0]), *row[1:]] for row in rows]


def _bits(m: Measured) -> float:
    return m.labeled.codes.shape[1] * math.log2(m.labeled.codebook_size)


def _part(
    measured: Sequence[Measured], name: str, view: Callable[[Measured, Any], Any]
) -> list[Any]:
    """What `view` makes of a part of the results, for the stores that have it."""
    found = [(m, getattr(m, name)) for m in measured]
    return [view(m, value) for m, value in found if not isinstance(value, str)]


def _usage(m: Measured, usage: Usage) -> dict[str, Any]:
    stats, size = usage.stats, usage.stats.codebook_size
    charts = [
        bar_chart(row / row.sum(), 1 / size, f"uniform, {1 / size:.3g}", f"{m.name}, position {k}")
        for k, row in enumerate(usage.counts)
    ]
    clusters = usage.entropy.clusters
    row = [
        m.name, f"{stats.pairs}", f"{clusters}", " ".join(f"{n}/{size}" for n in stats.usage),
        " ".join(f"{p.value:.1f}" for p in usage.perplexity),
        cell(usage.entropy, 1), f"{usage.random_entropy:.1f} of {_bits(m):.0f}",
        f"{stats.distinct_tuples}", cell(usage.top),
    ]  # fmt: skip
    return {"row": row, "name": m.name, "charts": charts if len(charts) <= 8 else []}


def _reconstruction(m: Measured, found: Reconstruction) -> list[Any]:
    return [
        m.name, *(cell(e, 3) for e in (found.true, found.shuffled, found.zero, found.gain)),
        found.true.n, found.true.clusters,
    ]  # fmt: skip


def _frames(measured: Sequence[Measured]) -> list[str]:
    """The frames that any store knows."""
    known = {
        frame for m in measured if not isinstance(m.actions, str) for frame in m.actions.scores
    }
    return [frame for frame in FRAMES if frame in known]


def _actions(frames: Sequence[str], m: Measured, actions: Actions) -> dict[str, Any]:
    """A table per frame: what is probed, R2 over the translations, and of each dimension."""
    tables = [
        {
            "frame": frame,
            "head": ["what is probed", "mean", *actions.names[frame]],
            "rows": [[name, cell(s.mean), *(cell(d) for d in s.dims)] for name, s in found.items()],
        }
        for frame, found in sorted(actions.scores.items(), key=lambda item: item[0] != actions.best)
    ]
    means = {frame: cell(found[CODES].mean) for frame, found in actions.scores.items()}
    summary = [m.name, *(means.get(frame, "–") for frame in frames), cell(actions.gain)]
    summary += [actions.headline.n, actions.headline.clusters]
    return {"name": m.name, "best": actions.best, "tables": tables, "summary": summary}


def _action_chart(measured: Sequence[Measured]) -> Html | None:
    """R2 of the codes of every labeler in its best frame, and of the references."""
    known = [(m.name, m.actions) for m in measured if not isinstance(m.actions, str)]
    rows = [(name, actions.headline) for name, actions in known]
    if not rows:
        return None
    first = known[0][1]
    scores = first.scores[first.best]
    rows += [(name, scores[name].mean) for name in (FIRST, RANDOM, TRUE) if name in scores]
    rows = [(name, e) for name, e in rows if not np.isnan(e.value)]
    if not rows:
        return None
    start = min(0.0, *(max(e.low, -0.3) for _, e in rows))
    shown = [
        Interval(name, max(e.value, start), max(e.low, start), max(e.high, start), rounded(e.value))
        for name, e in rows
    ]
    title, end = "R2 of translations", max(1e-3, *(e.high for _, e in rows))
    return interval_chart(
        shown, title, title, "95 % over videos", reference=0.0, reference_name="the mean action",
        start=start, end=end,
    )  # fmt: skip


def _budget_chart(measured: Sequence[Measured]) -> Html | None:
    """Curves of the labelers, those of controls only where there is nothing else."""
    known = [(m, m.actions) for m in measured if not isinstance(m.actions, str)]
    shown = [(m, actions) for m, actions in known if not m.labeled.is_control] or known
    if not shown:
        return None
    lines = {m.name: [(float(n), e.value) for n, e in actions.budget] for m, actions in shown}
    counts = sorted({x for points in lines.values() for x, _ in points})
    lines["the mean action"] = [(x, 0.0) for x in counts]
    return line_chart(lines, "labeled pairs", "R2 of translations")


def _unknown(measured: Sequence[Measured]) -> list[list[str]]:
    """What could not be measured and why, with the labelers that it is true of."""
    names: dict[tuple[str, str], list[str]] = {}
    for m in measured:
        for what, why in m.cannot().items():
            names.setdefault((what, why), []).append(m.name)
    return [[what, why, ", ".join(found)] for (what, why), found in names.items()]


def _agreement_table(measured: Sequence[Measured]) -> list[list[Any]]:
    rows = []
    for m in measured:
        kinds = {"other place": m.scene, "other place, by motion": m.moving, "other view": m.view}
        for name, found in kinds.items():
            if isinstance(found, Agreement):
                rows.append([
                    m.name, name, cell(found.normalized), rounded(found.shuffled),
                    rounded(found.observed), f"{found.chance:.2f}", found.normalized.n,
                    found.normalized.clusters,
                ])  # fmt: skip
    return rows


def _leakage_table(measured: Sequence[Measured]) -> list[list[Any]]:
    rows = []
    for m in measured:
        for name, found in (("place", m.place), ("camera", m.camera)):
            if isinstance(found, Leakage):
                rows.append([
                    m.name, name, cell(found.told), rounded(found.shuffled),
                    f"{found.accuracy:.2f}", f"{found.chance:.2f}", found.labels, found.told.n,
                    found.told.clusters,
                ])  # fmt: skip
    return rows


def _meaning(m: Measured, found: Meaning) -> list[Any]:
    measures = (
        found.reversed_same, found.noop, found.noop_moving, found.appearance, found.camera_changed,
        found.camera_read, found.stored,
    )  # fmt: skip
    return [m.name, *map(cell, measures), found.stored.n]


def _clips(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """Moving pictures per labeler and code, as long as the page has room."""
    room, found = PICTURE_BYTES, []
    for m in measured:
        codes = []
        for shown in m.clips:
            pictures = _pictures(shown)
            room -= sum(len(picture) for picture, _ in pictures)
            if room >= 0:
                codes.append(
                    {
                        "code": shown.code,
                        "count": shown.count,
                        "fraction": shown.fraction,
                        "clips": pictures,
                    }
                )
        if codes:
            found.append({"name": m.name, "codes": codes})
    return found


def _pictures(shown: CodeClips) -> list[tuple[Html, str]]:
    return [
        (media.moving_picture(frames, seconds, text), text)
        for frames, seconds, text in zip(shown.clips, shown.seconds, shown.texts, strict=True)
    ]


def _missing(m: Measured) -> tuple[str, ...]:
    missing = () if isinstance(m.actions, str) else m.actions.missing
    words = f"{len(missing)} videos without true actions, such as: {missing[0]}" if missing else ""
    return (words,) if words else ()
