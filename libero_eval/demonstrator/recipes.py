"""How each task is solved: which object is taken where, and how it is grasped.

Offsets are in world axes from the object's body origin and belong to the orientation in which
LIBERO's init states place the object. The fingers close along y.
"""

from dataclasses import dataclass, replace

import numpy as np

from invact_vla.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Carry:
    """Take an object to a target.

    grasp: from the object's origin to the grip site, m. slack: how far the hand may be from there
    when it closes, (3,) m. target: the body to go to. place: from the target's origin to the
    object's origin at release, m. drop: let it fall from there, or set it down. tolerance: how far
    from there, sideways, it may be released, m. neighbour: a tall object that may be in the way.
    """

    item: str
    grasp: tuple[float, float, float]
    slack: tuple[float, float, float]
    target: str
    place: tuple[float, float, float]
    drop: bool
    tolerance: float
    neighbour: str | None = None
    transit_z: float = 0.64  # height of the empty hand on its way, above the basket's rim at 0.58

    @property
    def grasp_offset(self) -> np.ndarray:
        return np.array(self.grasp)

    @property
    def place_offset(self) -> np.ndarray:
        return np.array(self.place)


# On the way to a later object the hand travels higher, so that its height alone tells which object is
# next: a policy that must read it off small images otherwise turns back to the first one.
LATER_RISE = 0.10
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


RECIPES: dict[tuple[str, int], tuple[Carry, ...]] = {
    ("libero_10", 0): (_can("alphabet_soup_1"), _can("tomato_sauce_1")),
    ("libero_10", 1): (_box("cream_cheese_1", 0.02, "milk_1"), _box("butter_1", 0.0, "milk_1")),
    ("libero_10", 7): (_can("alphabet_soup_1"), _box("cream_cheese_1")),
    ("libero_10", 4): (
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


def recipe(suite: str, task_id: int) -> tuple[Carry, ...]:
    """The steps of a task; UserError for a task without a recipe."""
    if (suite, task_id) not in RECIPES:
        known = ", ".join(f"{s} {t}" for s, t in sorted(RECIPES))
        raise UserError(f"no demonstrator for {suite} task {task_id}; there is one for: {known}")
    steps = RECIPES[suite, task_id]
    return tuple(replace(s, transit_z=s.transit_z + LATER_RISE * i) for i, s in enumerate(steps))
