"""Tasks 0, 1, 7 (two things into the basket) and 4 (two mugs onto two plates) of LIBERO-10.

Offsets are in world axes from the object's body origin and belong to the orientation in which
LIBERO's init states place the object. The fingers close along y.
"""

from libero_eval.expert.steps.carry import Carry, rising
from libero_eval.expert.steps.neighbor import FINGERS, Neighbor
from libero_eval.expert.steps.step import Step

BASKET_TOP = 0.147  # above its origin
CAN_HALF = 0.033  # radius of a can: a second one dropped onto the first would bounce off
BASKET = Neighbor("basket_1", (0.079, 0.085), gives_way=False)
MILK = Neighbor("milk_1", (0.026, 0.026), gives_way=True)
TOMATO = Neighbor("tomato_sauce_1", (CAN_HALF, CAN_HALF), gives_way=True, part=FINGERS, room=0.0)


def _can(item: str, beside: float = 0.0, neighbors: tuple[Neighbor, ...] = ()) -> Carry:
    """A can, grasped around its upper half, dropped into the basket, beside its middle along x."""
    return Carry(
        item=item, grasp=(0.0, -0.003, 0.018), slack=(0.012, 0.006, 0.008), target="basket_1",
        place=(beside, 0.0, BASKET_TOP + 0.06), drop=True, tolerance=0.03, neighbors=neighbors,
    )  # fmt: skip


def _box(item: str, grasp_x: float = 0.0, *neighbors: Neighbor) -> Carry:
    """A flat box, grasped across its narrow side, dropped into the basket."""
    return Carry(
        item=item, grasp=(grasp_x, 0.0, 0.006), slack=(0.015, 0.01, 0.006), target="basket_1",
        place=(0.0, 0.0, BASKET_TOP + 0.03), drop=True, tolerance=0.03, neighbors=neighbors,
    )  # fmt: skip


PORCELAIN_MUG = Carry(
    item="porcelain_mug_1", grasp=(0.0, -0.064, 0.096), slack=(0.01, 0.006, 0.008),
    target="plate_1", place=(0.0, 0.0, 0.004), drop=False, tolerance=0.012,
)  # fmt: skip


RECIPES: dict[tuple[str, int], tuple[Step, ...]] = {
    ("libero_10", 0): rising(
        _can("alphabet_soup_1", CAN_HALF), _can("tomato_sauce_1", -CAN_HALF)
    ),
    ("libero_10", 1): rising(
        _box("cream_cheese_1", 0.02, MILK), _box("butter_1", 0.0, MILK, BASKET)
    ),
    ("libero_10", 7): rising(
        _can("alphabet_soup_1", neighbors=(TOMATO,)), _box("cream_cheese_1")
    ),
    ("libero_10", 4): rising(
        PORCELAIN_MUG,
        Carry(
            item="white_yellow_mug_1", grasp=(0.0, 0.062, 0.092), slack=(0.01, 0.006, 0.008),
            target="plate_2", place=(0.0, 0.0, 0.004), drop=False, tolerance=0.012,
        ),
    ),
}  # fmt: skip
