"""Tables for the terminal."""

from collections.abc import Sequence


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = ()) -> str:
    """Columns two spaces apart, right-aligned but for those in `left`; a line a row."""
    columns = list(zip(head, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    lines = []
    for row in (head, *rows):
        cells = [
            f"{cell:<{width}}" if number in left else f"{cell:>{width}}"
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def percent(fraction: float | None) -> str:
    """12.3 %, or a dash for nothing."""
    return "–" if fraction is None else f"{100 * fraction:.1f} %"


def whole_percent(fraction: float) -> str:
    """12 %."""
    return f"{100 * fraction:.0f} %"


def points(fraction: float) -> str:
    """+8.0: a difference in percentage points."""
    return f"{100 * fraction:+.1f}"


def p_text(p: float, name: str = "p") -> str:
    """p = 0.043, or p < 0.001; without a name the number alone."""
    if p < 0.001:
        return f"{name} < 0.001".strip()
    return f"{name} = {p:.3f}" if name else f"{p:.3f}"
