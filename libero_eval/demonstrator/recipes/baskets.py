"""Tasks 0, 1, 7 (two things into the basket) and 4 (two mugs onto two plates) of LIBERO-10.

Offsets are in world axes from the object's body origin and belong to the orientation in which
LIBERO's init states place the object. The fingers close along y.
"""

from libero_eval.demonstrator.steps.carry import Carry, rising
from libero_eval.demonstrator.steps.step import Step

BASKET_TOP = 0.147  # above its origin


def _can(item: str) -> Carry:
    """A can, grasped around its upper half, dropped into the basket."""
    return Carry(
        item=item, grasp=(0.0, -0.003, 0.018), slack=(0.012, 0.006, 0.008), target="basket_1",
        place=(0.0, 0.0, BASKET_TOP + 0.06), drop=True, tolerance=0.03,
    )  # fmt: skip


def _box(item: str, grasp_x: float = 0.0, neighbour: str | None = None) -> Carry:
    """A flat box, grasped across its narrow side, dropped into the basket."""
    return Carry(
        item=item, grasp=(grasp_x, 0.0, 0.006), slack=(0.015, 0.01, 0.006), target="basket_1",
        place=(0.0, 0.0, BASKET_TOP + 0.03), drop=True, tolerance=0.03, neighbour=neighbour,
    )  # fmt: skip


RECIPES: dict[tuple[str, int], tuple[Step, ...]] = {
    ("libero_10", 0): rising(_can("alphabet_soup_1"), _can("tomato_sauce_1")),
    ("libero_10", 1): rising(_box("cream_cheese_1", 0.02, "milk_1"), _box("butter_1", 0.0, "milk_1")),
    ("libero_10", 7): rising(_can("alphabet_soup_1"), _box("cream_cheese_1")),
    ("libero_10", 4): rising(
        Carry(
            item="porcelain_mug_1", grasp=(0.0, -0.064, 0.096), slack=(0.01, 0.006, 0.008),
            target="plate_1", place=(0.0, 0.0, 0.004), drop=False, tolerance=0.012,
        ),
        Carry(
            item="white_yellow_mug_1", grasp=(0.0, 0.062, 0.092), slack=(0.01, 0.006, 0.008),
            target="plate_2", place=(0.0, 0.0, 0.004), drop=False, tolerance=0.012,
        ),
    ),
}  # fmt: skip
