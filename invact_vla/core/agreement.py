"""Tensors held against those that a reference program recorded, printed one line each."""

from collections.abc import Mapping

from torch import Tensor

TOLERANCE = 1e-4  # largest absolute difference of a float tensor; whole numbers must be equal


def print_agreement(
    computed: Mapping[str, Tensor], expected: Mapping[str, Tensor], tolerance: float = TOLERANCE
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
