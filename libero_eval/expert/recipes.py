"""How each task of LIBERO-10 is solved: (suite, task id) -> its steps in order.

Offsets are in world axes from the object's body origin and belong to the orientation in which
LIBERO's init states place the object. The fingers close along y, but for tasks 3 and 9, where the hand
turns: beside the bowl stands a wine rack, which leaves no room for such a hand; the mug is held by its
handle. And before the drawer and in the microwave's opening the hand leans back: what is above would
stop it.
"""

from dataclasses import replace

import numpy as np

from invact_vla.core.errors import UserError
from libero_eval.expert.steps import FINGERS, Carry, Close, Facing, Insert, Neighbor, Step, Turn

BASKET_TOP = 0.147  # above its origin
CAN_HALF = 0.033  # radius of a can: a second one dropped onto the first would bounce off
BASKET = Neighbor("basket_1", (0.079, 0.085), gives_way=False)
MILK = Neighbor("milk_1", (0.026, 0.026), gives_way=True)
TOMATO = Neighbor("tomato_sauce_1", (CAN_HALF, CAN_HALF), gives_way=True, part=FINGERS, room=0.0)

DRAWER, MICROWAVE, STOVE = "white_cabinet_1_bottom_region", "microwave_1", "flat_stove_1"
# The angles of grip are a little less than a quarter turn from the resting hand: at a quarter turn
# chance would decide which way the hand turns.
BOWL_GRIP, MUG_GRIP = np.radians(75.0), np.radians(82.0)
BOWL_RIM = (-0.049 * np.cos(BOWL_GRIP), -0.049 * np.sin(BOWL_GRIP), 0.044)  # its side at +x
FACING_Y = np.pi / 2  # angle of a body's x axis

BOOK_TO_SPINE = 0.0122  # from the origin of the standing book to its middle, along -y
PLATE_RIGHT = "living_room_table_plate_right_region"  # counts as reached up to 10.7 cm above it

HOT_PLATE = (0.15, 0.0, 0.0255)  # middle of its top, from the stove's origin
POT_FOOT = 0.066  # a pot's origin above its foot
PRESS = 0.008  # a pot is led this far below the plate, so that it touches down before it is let go
TRANSIT_Z = 1.13  # empty hand, above a pot on the plate at 1.08

# On the way to a later object the hand travels higher, so that its height alone tells which object is
# next: a policy that must read it off small images otherwise turns back to the first one.
LATER_RISE = 0.10


def _rising(*steps: Carry) -> tuple[Carry, ...]:
    """The steps, each traveled to higher than the one before."""
    return tuple(replace(s, transit_z=s.transit_z + LATER_RISE * i) for i, s in enumerate(steps))


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


def _pot(item: str, beside: float = 0.0) -> Carry:
    """A moka pot, held by the knob of its lid, 1 cm thick both ways; set onto the plate, this far
    from its middle along x."""
    x, y, z = HOT_PLATE
    return Carry(
        item=item, grasp=(0.0, 0.0, 0.080), slack=(0.008, 0.005, 0.004), target=STOVE,
        place=(x + beside, y, z + POT_FOOT - PRESS), tolerance=0.015, transit_z=TRANSIT_Z,
    )  # fmt: skip


PORCELAIN_MUG = Carry(
    item="porcelain_mug_1", grasp=(0.0, -0.064, 0.096), slack=(0.01, 0.006, 0.008),
    target="plate_1", place=(0.0, 0.0, 0.004),
)  # fmt: skip

_LIBERO_10: dict[int, tuple[Step, ...]] = {
    0: _rising(_can("alphabet_soup_1", CAN_HALF), _can("tomato_sauce_1", -CAN_HALF)),
    1: _rising(_box("cream_cheese_1", 0.02, MILK), _box("butter_1", 0.0, MILK, BASKET)),
    2: (Turn(stove=STOVE, transit_z=TRANSIT_Z), _pot("moka_pot_1")),
    3: (
        Carry(
            item="akita_black_bowl_1", grasp=BOWL_RIM, slack=(0.012, 0.01, 0.01),
            facing=Facing(grip=BOWL_GRIP, place=FACING_Y), target=DRAWER,
            place=(-0.02, -0.016, 0.0), transit_z=1.08, clearance=0.04,
        ),
        Close(
            goal=DRAWER, body="white_cabinet_1_cabinet_bottom", at=(0.03, -0.123, 0.04),
            push=(0.0, 1.0, 0.0), transit_z=1.08, yaw=np.pi, tilt=np.radians(40.0),
        ),
    ),
    4: _rising(
        PORCELAIN_MUG,
        Carry(
            item="white_yellow_mug_1", grasp=(0.0, 0.062, 0.092), slack=(0.01, 0.006, 0.008),
            target="plate_2", place=(0.0, 0.0, 0.004),
        ),
    ),
    5: (
        Carry(
            item="black_book_1", grasp=(0.0, -BOOK_TO_SPINE, 0.115), slack=(0.012, 0.012, 0.008),
            target="desk_caddy_1_back_contain_region", place=(0.0, -BOOK_TO_SPINE, -0.065),
            transit_z=1.15, clearance=0.145, funnel=(0.004, 0.012),
            facing=Facing(grip=0.0, place=np.pi),
        ),
    ),
    6: _rising(
        PORCELAIN_MUG,
        Carry(
            item="chocolate_pudding_1", grasp=(0.0, 0.0, 0.006), slack=(0.015, 0.01, 0.006),
            target=PLATE_RIGHT, place=(0.0, 0.03, 0.042), clearance=0.07,
        ),
    ),
    7: _rising(_can("alphabet_soup_1", neighbors=(TOMATO,)), _box("cream_cheese_1")),
    8: (
        *_rising(_pot("moka_pot_2", 0.048), _pot("moka_pot_1", -0.048)),
        Turn(stove=STOVE, transit_z=TRANSIT_Z),  # it is on; turned again if a pot switched it off
    ),
    9: (
        Insert(
            item="white_yellow_mug_1", grasp=(0.062, 0.0, 0.072), slack=(0.01, 0.01, 0.01),
            facing=Facing(grip=MUG_GRIP, place=-FACING_Y), tilt=np.radians(30.0),
            target=MICROWAVE, place=(-0.02, -0.028, 0.026), transit_z=1.15, clearance=0.015,
            gate=0.28, swing=0.05,
        ),
        Close(
            goal=MICROWAVE, body="microwave_1_microdoorroot", at=(0.19, -0.044, 0.069),
            push=(0.0, 1.0, 0.0), transit_z=1.15, yaw=np.pi,
        ),
    ),
}  # fmt: skip
RECIPES = {("libero_10", task): steps for task, steps in _LIBERO_10.items()}


def recipe(suite: str, task_id: int) -> tuple[Step, ...]:
    """The steps of a task; UserError for a task without a recipe."""
    if (suite, task_id) not in RECIPES:
        known = ", ".join(f"{s} {t}" for s, t in sorted(RECIPES))
        raise UserError(f"no expert for {suite} task {task_id}; there is one for: {known}")
    return RECIPES[suite, task_id]
