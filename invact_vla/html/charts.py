"""Small charts as inline SVG, drawn by matplotlib. Colors are CSS variables of the page, so they follow
light and dark; text stays text. The same values give the same bytes.
"""

import io
import logging
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from invact_vla.html.render import Html, part

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH_IN = 4.2  # of a chart at its natural size, about what a phone shows
MAX_POINTS = 240  # of a line; more are averaged in bins
LABEL_CHARACTERS = 26  # longer labels are cut; tables and legends have them in full
COLORS = 6  # --c0 .. --c5 of the page
SINGLE_COLOR = 2
_HEX = ("#6b7280", "#c26a17", "#1f5fae", "#2c8a57", "#8b48a8", "#b23a48")
_SOFT, _RULE = "#6a6e76", "#e3e1da"
_VARIABLES = {h: f"var(--c{n})" for n, h in enumerate(_HEX)} | {
    _SOFT: "var(--soft)", _RULE: "var(--rule)",
}  # fmt: skip
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "invact",
    "text.parse_math": False,  # names of variants may hold a dollar sign
    "font.size": 9,
    "axes.edgecolor": _RULE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": _RULE,
    "lines.linewidth": 1.6,
    **{f"{name}.color": _SOFT for name in ("text", "xtick", "ytick")},
    "axes.labelcolor": _SOFT,
}

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Interval:
    """A row of a chart: a value with its interval, the text beside it, and what it is the mean of."""

    label: str
    value: float
    low: float
    high: float
    text: str
    points: tuple[float, ...] = ()


def line_chart(
    series: Mapping[str, Points], x_label: str, y_label: str, order: Sequence[str] = ()
) -> Html:
    """Lines over a common x axis, e.g. loss over steps; needs one point in any series.

    order: names that fix the colors, so that a variant has one color in all charts.
    A vertical axis of positive values that spans more than a factor of 20 is logarithmic.
    """
    lines = {name: _thin(points) for name, points in series.items()}
    lines = {name: points for name, points in lines.items() if points}
    if not lines:
        raise ValueError("line_chart: no points")
    numbers = color_numbers(list(lines), order)
    ys = [y for points in lines.values() for _, y in points]
    is_log = min(ys) > 0 and max(ys) / min(ys) > 20

    def draw(axes: Any) -> None:
        for name, points in lines.items():
            marker = "o" if len(points) == 1 else ""
            axes.plot(*zip(*points, strict=True), marker=marker, color=_HEX[numbers[name]])
        axes.set_xlabel(_cut(x_label))
        title = _cut(y_label) + " (log scale)" * is_log
        axes.set_title(title, loc="left", color=_SOFT, fontsize=9)
        if is_log:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.tick_params(axis="y", which="minor", left=False, labelleft=False)
        axes.grid(axis="y")

    legend = [("line", f"var(--c{number})", name) for name, number in numbers.items()]
    return _chart(draw, 2.4, f"{y_label} over {x_label}: {', '.join(lines)}", legend)


def bar_chart(values: Sequence[float], reference: float, reference_name: str, title: str) -> Html:
    """Fractions of the codes 0..n-1 as bars, with a dashed line at `reference`, e.g. uniform use."""

    def draw(axes: Any) -> None:
        axes.bar(range(len(values)), values, color=_HEX[SINGLE_COLOR])
        axes.axhline(reference, color=_SOFT, linestyle="--", linewidth=1)
        axes.set_xticks(range(len(values)) if len(values) <= 16 else [])
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)

    return _chart(draw, 1.2, title, [("dashes", "var(--soft)", reference_name)], width=2.6)


def interval_chart(
    rows: Sequence[Interval],
    title: str,
    x_label: str,
    legend: str,
    *,
    reference: float | None = None,
    reference_name: str = "",
    start: float = 0.0,
    end: float | None = None,
) -> Html:
    """Dots with whiskers, one row each, from `start` to `end`; small open dots for the rows' points.

    legend: what dot and whisker are. reference: where a dashed line stands. end: None for the
    largest value drawn. Values are >= `start`.
    """
    every = [value for r in rows for value in (r.high, r.value, *r.points)] + [reference or 0.0]

    def draw(axes: Any) -> None:
        side = axes.get_yaxis_transform()
        for number, row in enumerate(rows):
            color = _HEX[number % COLORS]
            axes.plot([row.low, row.high], [number, number], color=color, linewidth=2.4)
            axes.plot(row.value, number, marker="o", markersize=6, color=color)
            level = [number - 0.25] * len(row.points)
            axes.plot(row.points, level, "o", markersize=3.5, color=color, fillstyle="none")
            axes.text(1.02, number, _cut(row.text), transform=side, va="center")
        if reference is not None:
            axes.axvline(reference, color=_SOFT, linestyle="--", linewidth=1)
        right = end or max(every) or 1.0
        margin = 0.02 * (right - start)  # a dot at the start stays clear of its label
        axes.set_xlim(start - margin, right + margin)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_yticks(range(len(rows)), [_cut(row.label) for row in rows])
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(_cut(x_label))
        axes.grid(axis="x")

    marks = [("dot", "var(--soft)", legend)]
    if any(row.points for row in rows):
        marks.append(("ring", "var(--soft)", "seeds"))
    if reference is not None:
        marks.append(("dashes", "var(--soft)", reference_name))
    return _chart(draw, 0.7 + 0.32 * len(rows), title, marks)


def color_numbers(names: Sequence[str], order: Sequence[str] = ()) -> dict[str, int]:
    """Name -> number of its color: its place in `order`, then the next ones; one alone is blue."""
    if not order and len(names) == 1:
        return {names[0]: SINGLE_COLOR}
    places = list(order) + [name for name in names if name not in order]
    return {name: places.index(name) % COLORS for name in names}


def _chart(
    draw: Any,
    height: float,
    title: str,
    legend: Sequence[tuple[str, str, str]],
    width: float = WIDTH_IN,
) -> Html:
    """What `draw(axes)` draws, as SVG of width x height inches, above its legend: (mark, color, name)
    of everything drawn."""
    import matplotlib
    from matplotlib.figure import Figure

    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # its font cache is nobody's business
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of glyphs that its font lacks; the page has another
        figure = Figure(figsize=(width, height))
        draw(figure.subplots())
        svg = _svg(figure)
    return part("chart", svg=Html(svg), title=title, legend=legend)


def _svg(figure: "Figure") -> str:
    """The figure's <svg>, made fit for a page."""
    file, given = io.StringIO(), {"bbox_inches": "tight", "transparent": True}
    figure.savefig(file, format="svg", metadata={"Date": None}, **given)
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|\n *(?=<)", "", text, flags=re.S)
    return re.sub(r"<[^>]+>", lambda tag: _clean(tag[0]), text)


def _clean(tag: str) -> str:
    """A tag without addresses, ids that nothing refers to, own fonts and idle digits, in the page's
    colors; what stands between tags is left alone."""
    tag = re.sub(r' xmlns(:xlink)?="[^"]*"| id="(?![mp][0-9a-f]{10}")[^"]*"', "", tag)
    tag = re.sub(r"font-family: [^;]*; ?|(?<=\d\.\d\d)\d+|\s*\n\s*(?=\S)", "", tag)
    tag = re.sub(
        r'<svg width="([^"]*)" height="[^"]*"', r'<svg class="chart" style="max-width:\1"', tag
    )
    for color, variable in _VARIABLES.items():
        tag = tag.replace(color, variable)
    return tag.replace("xlink:href", "href")


def _cut(text: str) -> str:
    """At most LABEL_CHARACTERS printable characters: fonts refuse others."""
    short = text if len(text) <= LABEL_CHARACTERS else text[: LABEL_CHARACTERS - 1] + "…"
    return "".join(c if c.isprintable() else "?" for c in short)


def _thin(points: Points) -> list[tuple[float, float]]:
    """At most MAX_POINTS points: means of equally many neighbors, the finite ones only."""
    points = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    size = math.ceil(len(points) / MAX_POINTS) if points else 1
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]
