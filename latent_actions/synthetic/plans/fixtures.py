"""What is done to fixtures: open and close drawers, lids and doors, turn knobs, press buttons."""

import numpy as np
from scipy.spatial.transform import Rotation

from latent_actions.synthetic.motions import Key, backwards
from latent_actions.synthetic.objects import (
    DOOR_HINGE,
    DOOR_OPEN_RAD,
    DRAWER_TRAVEL_M,
    LID_OPEN_RAD,
)
from latent_actions.synthetic.plans.setting import Setting

# where a fixture's part turns, in its frame: axis, a point of it, how far it opens
HINGES = {
    "chest": ("x", np.array([0.0, 0.08, 0.10]), -LID_OPEN_RAD * 0.86),
    "cabinet": ("z", np.array([*DOOR_HINGE, 0.0]), -DOOR_OPEN_RAD),
}
ARC_KEYS = 6  # straight pieces of the arc of a lid or door


def open_(s: Setting) -> list[Key]:
    """Pull a drawer out, raise a lid or swing a door on its hinge."""
    grasp, hand, grip = s.grasp(), s.hand(), s.kind.grip
    aside = np.array([0.0, -0.10, 0.05]) + s.offset
    keys = [Key(0.0, grasp + aside, hand, 0.1), Key(0.24, grasp, hand, grip, event="attach")]
    if s.name == "drawer":
        end = grasp + np.array([0.0, -DRAWER_TRAVEL_M, 0.0])
        keys.append(Key(0.86, end, hand, grip, event="detach", free=False))
    else:
        keys += _arc(s, grasp, hand, grip)
    last = keys[-1]
    back = np.array([0.0, -0.05, 0.04]) if s.name == "drawer" else np.array([0.0, -0.10, 0.02])
    if s.name == "cabinet":  # off the door's outer side
        back = (last.rotation * hand.inv()).apply(back)
    return [*keys, Key(1.0, last.position + back, last.rotation, 0.1)]


def close(s: Setting) -> list[Key]:
    return backwards(open_(s))


def _arc(s: Setting, grasp: np.ndarray, hand: Rotation, grip: float) -> list[Key]:
    axis, point, angle = HINGES[s.name]
    hinge = s.spot + point
    keys = []
    for k in range(1, ARC_KEYS + 1):
        share = k / ARC_KEYS
        turn = Rotation.from_euler(axis, angle * (share * share * (3 - 2 * share)))
        keys.append(
            Key(
                0.24 + 0.62 * share, hinge + turn.apply(grasp - hinge), turn * hand, grip,
                event="detach" if k == ARC_KEYS else None, eased=False, free=False,
            )
        )  # fmt: skip
    return keys


def screw(s: Setting) -> list[Key]:
    return _twist(s, -1.0)


def unscrew(s: Setting) -> list[Key]:
    return _twist(s, 1.0)


def _twist(s: Setting, direction: float) -> list[Key]:
    """Turn the wrist about the vertical, holding a knob or lid; +1 is counter-clockwise from
    above.
    """
    grasp, grip = s.grasp(), s.kind.grip
    middle = s.turn_rad + 0.1 * s.mirror
    first, last = (s.hand(turn=middle + sign * direction * 0.95 * s.amplitude) for sign in (-1, 1))
    halfway = s.hand(turn=middle)
    return [
        Key(0.0, grasp + s.away + s.offset, first, 0.05),
        Key(0.20, grasp, first, grip, event="attach"),
        Key(0.54, grasp, halfway, grip, eased=False, free=False),
        Key(0.86, grasp, last, grip, event="detach", eased=False, free=False),
        Key(1.0, grasp + np.array([0, 0, 0.05]), last, 0.1),
    ]


def press(s: Setting) -> list[Key]:
    """A flat hand comes down on the button, holds it in, and rises."""
    hand = s.hand()
    down = s.grasp() + np.array([0.0, 0.0, -0.012])
    up = down + np.array([0.0, -0.02, 0.15 * s.amplitude])
    return [
        Key(0.0, up + s.offset, hand, 0.0, "flat"),
        Key(0.42, down, hand, 0.0, "flat"),
        Key(0.62, down, hand, 0.0, "flat"),
        Key(1.0, up, hand, 0.0, "flat"),
    ]
