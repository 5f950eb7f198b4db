"""Tasks 2 (stove on, moka pot onto it) and 8 (both moka pots onto the stove) of LIBERO-10.

A moka pot is held by the knob of its lid, 1 cm thick both ways: the hand need not turn.
"""

from libero_eval.expert.steps.carry import Carry, rising
from libero_eval.expert.steps.step import Step
from libero_eval.expert.steps.turn import Turn

STOVE = "flat_stove_1"
PLATE = (0.15, 0.0, 0.0255)  # middle of the hot plate's top, from the stove's origin
POT_FOOT = 0.066  # a pot's origin above its foot
PRESS = 0.008  # a pot is led this far below the plate, so that it touches down before it is let go
TRANSIT_Z = 1.13  # empty hand, above a pot on the plate at 1.08


def _pot(item: str, beside: float = 0.0) -> Carry:
    """A moka pot, set onto the plate, this far from its middle along x."""
    return Carry(
        item=item, grasp=(0.0, 0.0, 0.080), slack=(0.008, 0.005, 0.004), target=STOVE,
        place=(PLATE[0] + beside, PLATE[1], PLATE[2] + POT_FOOT - PRESS), drop=False,
        tolerance=0.015, transit_z=TRANSIT_Z,
    )  # fmt: skip


RECIPES: dict[tuple[str, int], tuple[Step, ...]] = {
    ("libero_10", 2): (Turn(stove=STOVE, transit_z=TRANSIT_Z), _pot("moka_pot_1")),
    ("libero_10", 8): (
        *rising(_pot("moka_pot_2", 0.048), _pot("moka_pot_1", -0.048)),
        Turn(stove=STOVE, transit_z=TRANSIT_Z),  # it is on; turned again if a pot switched it off
    ),
}
