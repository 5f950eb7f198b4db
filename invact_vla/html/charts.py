"""Small charts as inline SVG. Colors are CSS variables of the page, so they follow light and dark.

No chart library: the report embeds a dozen charts, and these stay sharp, small and themable.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from invact_vla.html.page import Html, join

WIDTH, HEIGHT = 560, 240
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 26, 40
MAX_POINTS = 240  # of a line; more are averaged in bins
COLOURS = 6  # --c0 .. --c5 of the page
SINGLE_COLOUR = 2

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Interval:
    """A value with its interval, all in percent, and the text beside it."""

    label: str
    value: float
    low: float
    high: float
    text: str


@dataclass(frozen=True)
class Bar:
    """A mean with its interval and the values that it is the mean of, all in one unit."""

    label: str
    value: float
    low: float
    high: float
    points: tuple[float, ...]


def line_chart(
    series: Mapping[str, Points], x_label: str, y_label: str, order: Sequence[str] = ()
) -> Html:
    """Lines over a common x axis, e.g. loss over steps; needs one point in any series.

    order: names that fix the colors, so that a variant has one color in all charts.
    A vertical axis of positive values that spans more than a factor of 20 is logarithmic.
    """
    lines = {name: _thin(points) for name, points in series.items() if len(points)}
    if not lines:
        raise ValueError("line_chart: no points")
    xs = [x for points in lines.values() for x, _ in points]
    ys = [y for points in lines.values() for _, y in points]
    is_log = min(ys) > 0 and max(ys) / min(ys) > 20
    x_axis, y_axis = _Axis(min(xs), max(xs)), _Axis(min(ys), max(ys), is_log)
    parts = [_frame(x_axis, y_axis, x_label, y_label + (" (log scale)" if is_log else ""))]
    numbers = color_numbers(list(lines), order)
    for name, points in lines.items():
        path = " ".join(f"{x_axis.x(x):.1f},{y_axis.y(y):.1f}" for x, y in points)
        color = f"var(--c{numbers[name]})"
        if len(points) == 1:
            x, y = path.split(",")
            parts.append(f'<circle cx="{x}" cy="{y}" r="3" style="fill:{color}"/>')
        else:
            parts.append(f'<polyline class="line" style="stroke:{color}" points="{path}"/>')
    title = f"{y_label} over {x_label}: {', '.join(lines)}"
    chart = _svg(WIDTH, HEIGHT, title, parts)
    return join(chart, _legend(numbers)) if len(lines) > 1 else chart


def bar_chart(values: Sequence[float], reference: float | None, title: str) -> Html:
    """Shares (sum 1) of the codes 0..n-1 as bars, with a line at `reference`, e.g. uniform use."""
    width, height, base = 220, 96, 78
    top = max([*values, reference or 0.0]) or 1.0
    slot = width / len(values)
    parts = []
    for code, value in enumerate(values):
        bar = 70 * value / top
        parts.append(
            f'<rect class="bar" x="{slot * code + 0.1 * slot:.1f}" y="{base - bar:.1f}" '
            f'width="{0.8 * slot:.1f}" height="{bar:.1f}">'
            f"<title>code {code}: {value:.1%}</title></rect>"
        )
        if len(values) <= 16:
            parts.append(f'<text x="{slot * (code + 0.5):.1f}" y="{base + 14}">{code}</text>')
    if reference is not None:
        y = base - 70 * reference / top
        parts.append(f'<line class="mark" x1="0" x2="{width}" y1="{y:.1f}" y2="{y:.1f}"/>')
    return _svg(width, height, title, parts, "chart small")


def interval_chart(rows: Sequence[Interval], title: str) -> Html:
    """Dots with whiskers on a percent axis from 0 to 100, a row each."""
    row_px, label_px, text_px = 30, 120, 150
    width, height = 620, row_px * len(rows) + 30
    scale = (width - label_px - text_px) / 100
    parts = []
    for percent in (0, 25, 50, 75, 100):
        x = label_px + scale * percent
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="0" y2="{height - 26}"/>')
        parts.append(f'<text x="{x}" y="{height - 8}">{percent} %</text>')
    for number, row in enumerate(rows):
        y = row_px * (number + 0.5)
        color = f"var(--c{number % COLOURS})"
        left, right = label_px + scale * row.low, label_px + scale * row.high
        parts.append(
            f'<text class="end" x="{label_px - 12}" y="{y + 4}">{escape(row.label)}</text>'
        )
        parts.append(
            f'<line class="whisker" style="stroke:{color}" x1="{left:.1f}" x2="{right:.1f}" '
            f'y1="{y}" y2="{y}"/><circle cx="{label_px + scale * row.value:.1f}" cy="{y}" r="5" '
            f'style="fill:{color}"/>'
        )
        parts.append(
            f'<text class="start" x="{width - text_px + 14}" y="{y + 4}">{escape(row.text)}</text>'
        )
    return _svg(width, height, title, parts, "chart wide")


def interval_bar(value: float, low: float, high: float) -> Html:
    """A dot with a whisker on a line from 0 to 100 %, small enough for a table's cell.

    value, low, high: fractions in [0, 1].
    """
    width, height = 120, 14
    x, left, right = (3 + (width - 6) * part for part in (value, low, high))
    middle = height / 2
    parts = [
        f'<line class="grid" x1="3" x2="{width - 3}" y1="{middle}" y2="{middle}"/>',
        f'<line class="whisker" style="stroke:var(--c2)" x1="{left:.1f}" x2="{right:.1f}" '
        f'y1="{middle}" y2="{middle}"/>',
        f'<circle cx="{x:.1f}" cy="{middle}" r="3.5" style="fill:var(--c2)"/>',
    ]
    title = f"{value:.1%}, interval {low:.1%} to {high:.1%}"
    return _svg(width, height, title, parts, "inline")


def bars_with_points(bars: Sequence[Bar], reference: float, title: str) -> Html:
    """Bars from 0 to the means, a row each, with whiskers, points and a dashed line at `reference`.

    Values are >= 0; the first bar has another color than the rest.
    """
    row_px, label_px, text_px = 28, 150, 70
    width, height = 620, row_px * len(bars) + 30
    axis = _Axis(0.0, 1.02 * max(max(b.high, b.value, *b.points, reference) for b in bars))
    scale = (width - label_px - text_px) / (WIDTH - LEFT - RIGHT)

    def x(value: float) -> float:
        return label_px + scale * (axis.x(value) - LEFT)

    parts = []
    for tick in axis.ticks():
        place = f'x1="{x(tick):.1f}" x2="{x(tick):.1f}"'
        parts.append(f'<line class="grid" {place} y1="0" y2="{height - 26}"/>')
        parts.append(f'<text x="{x(tick):.1f}" y="{height - 8}">{tick:g}</text>')
    for number, bar in enumerate(bars):
        y, color = row_px * (number + 0.5), f"var(--c{1 if number == 0 else SINGLE_COLOUR})"
        parts.append(
            f'<text class="end" x="{label_px - 12}" y="{y + 4}">{escape(bar.label)}</text>'
            f'<rect x="{x(0):.1f}" y="{y - 9}" width="{x(bar.value) - x(0):.1f}" height="18" '
            f'style="fill:{color};opacity:.35"/><line class="whisker" style="stroke:{color}" '
            f'x1="{x(bar.low):.1f}" x2="{x(bar.high):.1f}" y1="{y}" y2="{y}"/>'
            f'<text class="start" x="{width - text_px + 14}" y="{y + 4}">{bar.value:.1f}</text>'
        )
        parts += [
            f'<circle cx="{x(point):.1f}" cy="{y}" r="3.5" style="fill:{color}"/>'
            for point in bar.points
        ]
    mark = f'x1="{x(reference):.1f}" x2="{x(reference):.1f}"'
    parts.append(f'<line class="mark" {mark} y1="0" y2="{height - 26}"/>')
    return _svg(width, height, title, parts, "chart wide")


def cell_matrix(
    rows: Sequence[tuple[str, Sequence[str]]], colors: Mapping[str, str], title: str
) -> Html:
    """Small squares in rows, e.g. the outcome of each episode of each task.

    rows: label and the kinds of its cells; colors: kind -> CSS color; the legend lists them.
    """
    cell, gap, label_px = 11, 2, 26
    width = label_px + (cell + gap) * max(len(kinds) for _, kinds in rows)
    height = (cell + gap) * len(rows)
    parts = []
    for number, (label, kinds) in enumerate(rows):
        y = (cell + gap) * number
        parts.append(f'<text class="end" x="{label_px - 6}" y="{y + 10}">{escape(label)}</text>')
        for place, kind in enumerate(kinds):
            parts.append(
                f'<rect x="{label_px + (cell + gap) * place}" y="{y}" width="{cell}" '
                f'height="{cell}" rx="2" style="fill:{colors[kind]}">'
                f"<title>{escape(f'{label}, {place}: {kind}')}</title></rect>"
            )
    chart = _svg(width, height, title, parts, f'matrix" style="max-width:{2 * width}px')
    items = "".join(
        f'<span><i class="box" style="background:{color}"></i>{escape(kind)}</span>'
        for kind, color in colors.items()
    )
    return join(chart, Html(f'<p class="legend">{items}</p>'))


def color_numbers(names: Sequence[str], order: Sequence[str] = ()) -> dict[str, int]:
    """Name -> number of its color: its place in `order`, then the next ones; one alone is blue."""
    if not order and len(names) == 1:
        return {names[0]: SINGLE_COLOUR}
    places = list(order) + [name for name in names if name not in order]
    return {name: places.index(name) % COLOURS for name in names}


def _legend(numbers: Mapping[str, int]) -> Html:
    items = "".join(
        f'<span><i style="background:var(--c{number})"></i>{escape(name)}</span>'
        for name, number in numbers.items()
    )
    return Html(f'<p class="legend">{items}</p>')


class _Axis:
    """Maps values to pixels; rounds the range so that ticks are round numbers."""

    def __init__(self, low: float, high: float, is_log: bool = False) -> None:
        self.is_log = is_log
        if is_log:
            low, high = math.log10(low), math.log10(high)
        if high - low < 1e-12:
            low, high = low - 0.5, high + 0.5
        self._low, self._high = low, high

    def _fraction(self, value: float) -> float:
        value = math.log10(value) if self.is_log else value
        return (value - self._low) / (self._high - self._low)

    def x(self, value: float) -> float:
        return LEFT + self._fraction(value) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - self._fraction(value) * (HEIGHT - TOP - BOTTOM)

    def ticks(self) -> list[float]:
        """Three to seven round values inside the range."""
        if self.is_log:
            decades = range(math.floor(self._low), math.ceil(self._high) + 1)
            ticks = [m * 10.0**d for d in decades for m in (1, 2, 5)]
            ticks = [t for t in ticks if self._low <= math.log10(t) <= self._high]
            return ticks[:: max(1, math.ceil(len(ticks) / 6))]
        raw = (self._high - self._low) / 5
        unit = 10 ** math.floor(math.log10(raw))
        step = min((m * unit for m in (1, 2, 5, 10)), key=lambda s: abs(s - raw))
        first = math.ceil(self._low / step - 1e-9)
        return [n * step for n in range(first, math.floor(self._high / step + 1e-9) + 1)]


def _frame(x_axis: _Axis, y_axis: _Axis, x_label: str, y_label: str) -> str:
    parts = []
    for tick in y_axis.ticks():
        y = y_axis.y(tick)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        parts.append(f'<text class="end" x="{LEFT - 6}" y="{y + 4:.1f}">{tick:.3g}</text>')
    for tick in x_axis.ticks():
        parts.append(f'<text x="{x_axis.x(tick):.1f}" y="{HEIGHT - BOTTOM + 16}">{tick:g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 5}">{escape(x_label)}</text>')
    parts.append(f'<text class="start" x="{LEFT}" y="{TOP - 12}">{escape(y_label)}</text>')
    return "".join(parts)


def _svg(width: int, height: int, title: str, parts: Sequence[str], kind: str = "chart") -> Html:
    return Html(
        f'<svg class="{kind}" viewBox="0 0 {width} {height}" role="img">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def _thin(points: Points) -> Points:
    """At most MAX_POINTS points: means of equally many neighbors, the finite ones only."""
    points = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    size = math.ceil(len(points) / MAX_POINTS) if points else 1
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]
