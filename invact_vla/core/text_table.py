"""Tables for a terminal, and numbers as people read them."""

from collections.abc import Sequence


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = ()) -> str:
    """Columns two spaces apart, one line per row; right-aligned but for those in `left`.

    head: () for a table without one.
    """
    lines = [*([head] if head else []), *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            f"{cell:<{width}}" if number in left else f"{cell:>{width}}"
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


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
