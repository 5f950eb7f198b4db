"""Tasks 3 (bowl into the bottom drawer, closed) and 9 (mug into the microwave, closed).

Here the hand turns. Beside the bowl stands a wine rack, which leaves no room for a hand whose
fingers close along y. The mug is held by its handle, with fingers that close along x. And before
the drawer and in the microwave's opening the hand leans back: what is above would stop it.
"""

import numpy as np

from libero_eval.expert.steps.carry import Carry, Facing
from libero_eval.expert.steps.close import Close
from libero_eval.expert.steps.insert import Insert
from libero_eval.expert.steps.step import Step

DRAWER = "white_cabinet_1_bottom_region"
MICROWAVE = "microwave_1"

# The angles of grip are a little less than a quarter turn from the resting hand: at a quarter turn
# chance would decide which way the hand turns.
BOWL_GRIP = np.radians(75.0)
MUG_GRIP = np.radians(82.0)
BOWL_RIM = (-0.049 * np.cos(BOWL_GRIP), -0.049 * np.sin(BOWL_GRIP), 0.044)  # its side at +x
MUG_HANDLE = (0.062, 0.0, 0.072)
FACING_Y = np.pi / 2  # angle of a body's x axis

RECIPES: dict[tuple[str, int], tuple[Step, ...]] = {
    ("libero_10", 3): (
        Carry(
            item="akita_black_bowl_1", grasp=BOWL_RIM, slack=(0.012, 0.01, 0.01),
            facing=Facing(grip=BOWL_GRIP, place=FACING_Y), target=DRAWER,
            place=(-0.02, -0.016, 0.0), drop=False, tolerance=0.012, transit_z=1.08, clearance=0.04,
        ),
        Close(
            goal=DRAWER, body="white_cabinet_1_cabinet_bottom", at=(0.03, -0.123, 0.04),
            push=(0.0, 1.0, 0.0), transit_z=1.08, yaw=np.pi, tilt=np.radians(40.0),
        ),
    ),
    ("libero_10", 9): (
        Insert(
            item="white_yellow_mug_1", grasp=MUG_HANDLE, slack=(0.01, 0.01, 0.01),
            facing=Facing(grip=MUG_GRIP, place=-FACING_Y), tilt=np.radians(30.0),
            target=MICROWAVE, place=(-0.02, -0.028, 0.026), drop=False, tolerance=0.012,
            transit_z=1.15, clearance=0.015, gate=0.28, swing=0.05,
        ),
        Close(
            goal=MICROWAVE, body="microwave_1_microdoorroot", at=(0.19, -0.044, 0.069),
            push=(0.0, 1.0, 0.0), transit_z=1.15, yaw=np.pi,
        ),
    ),
}  # fmt: skip
