"""Tasks 5 (book into the caddy) and 6 (mug onto the plate, pudding beside it) of LIBERO-10."""

import math

from libero_eval.expert.recipes.baskets import PORCELAIN_MUG
from libero_eval.expert.steps.carry import Carry, Facing, rising
from libero_eval.expert.steps.step import Step

BOOK_TO_SPINE = 0.0122  # from the origin of the standing book to its middle, along -y
PLATE_RIGHT = "living_room_table_plate_right_region"  # counts as reached up to 10.7 cm above it

RECIPES: dict[tuple[str, int], tuple[Step, ...]] = {
    ("libero_10", 5): (
        Carry(
            item="black_book_1", grasp=(0.0, -BOOK_TO_SPINE, 0.115), slack=(0.012, 0.012, 0.008),
            target="desk_caddy_1_back_contain_region", place=(0.0, -BOOK_TO_SPINE, -0.065),
            drop=False, tolerance=0.012, transit_z=1.15, clearance=0.145,
            funnel=(0.004, 0.012), facing=Facing(grip=0.0, place=math.pi),
        ),
    ),
    ("libero_10", 6): rising(
        PORCELAIN_MUG,
        Carry(
            item="chocolate_pudding_1", grasp=(0.0, 0.0, 0.006), slack=(0.015, 0.01, 0.006),
            target=PLATE_RIGHT, place=(0.0, 0.03, 0.042), drop=False, tolerance=0.012, clearance=0.07,
        ),
    ),
}  # fmt: skip
