"""Tables for a terminal, numbers as people read them, and tensors held against recorded ones."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

TOLERANCE = 1e-4  # largest absolute difference of a float tensor; whole numbers must be equal


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


def print_agreement(
    computed: "Mapping[str, Tensor]", expected: "Mapping[str, Tensor]", tolerance: float = TOLERANCE
) -> list[bool]:
    """Print the largest error of each tensor in `expected`; whether each agrees."""
    found = []
    for name in sorted(expected):
        ours, recorded = computed[name], expected[name]
        if ours.shape != recorded.shape:
            agrees, words = False, f"shape {tuple(ours.shape)}, expected {tuple(recorded.shape)}"
        elif not recorded.is_floating_point():
            different = int((ours != recorded).sum())
            agrees, words = different == 0, f"{different} of {recorded.numel()} differ"
        else:
            gaps = (ours.double() - recorded.double()).abs()
            error = gaps.max().item() if gaps.numel() else 0.0
            agrees = error <= tolerance  # false for NaN
            words = f"largest error {error:.2e}, allowed {tolerance:.0e}"
        print(f"{name:20} {words}{'' if agrees else ': DISAGREES'}")
        found.append(agrees)
    return found


def exit_code(agree: list[bool]) -> int:
    """Print how many tensors agree; 0 if all do, else 1."""
    print("agreement" if all(agree) else "DISAGREEMENT", f"in {sum(agree)} of {len(agree)} tensors")
    return 0 if all(agree) else 1
