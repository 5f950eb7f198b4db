"""The verbs of a table: what each does to the hand and the object, and its temporal opposite.

Actions that undo each other are the same way run backwards wherever a hand can do that (pick/place,
lift/lower, stack/unstack, open/close); the others (push/pull, slide left/right, screw/unscrew)
mirror each other.
"""

import numpy as np
from scipy.spatial.transform import Rotation

from latent_actions.synthetic.hand import GRASP_POINT
from latent_actions.synthetic.motions import Key, backwards
from latent_actions.synthetic.plans.setting import Setting

FINGERTIP = np.array([-0.030, 0.170, -0.008])  # of a straight index finger, right hand frame


def _rest(s: Setting) -> Key:
    return Key(0.0, s.home, s.hand("rest"), 0.25)


def pick(s: Setting) -> list[Key]:
    """From the side of the body to the object, close, and carry it up and towards the body."""
    grasp, hand, grip = s.grasp(), s.hand(), s.kind.grip
    return [
        _rest(s), Key(0.26, grasp + s.away, hand, 0.05), Key(0.40, grasp, hand, 0.05, free=False),
        Key(0.50, grasp, hand, grip, event="attach", free=False), Key(1.0, s.held_at, hand, grip),
    ]  # fmt: skip


def place(s: Setting) -> list[Key]:
    return backwards(pick(s))


def lift(s: Setting) -> list[Key]:
    """The hand is at the object already: close and go straight up."""
    grasp, hand, grip = s.grasp(), s.hand(), s.kind.grip
    top = grasp + np.array([0, 0, 0.20 * s.amplitude])
    return [
        Key(0.0, grasp, hand, 0.1),
        Key(0.14, grasp, hand, grip, event="attach", free=False),
        Key(0.92, top, hand, grip),
        Key(1.0, top, hand, grip),
    ]


def lower(s: Setting) -> list[Key]:
    return backwards(lift(s))


def push(s: Setting) -> list[Key]:
    """Palm against the near side, away from the body."""
    way = np.array([0.0, 0.20 * s.amplitude, 0.0])
    touch = s.spot + np.array([0.0, -0.055, 0.05])
    hand = s.hand("push")
    s.spot = s.spot + way
    return [
        Key(0.0, touch + np.array([0.02 * s.mirror, -0.10, 0.02]) + s.offset, hand, 0.0, "flat"),
        Key(0.22, touch, hand, 0.0, "flat", "attach"),
        Key(0.88, touch + way, hand, 0.0, "flat", "detach", free=False),
        Key(1.0, touch + way + np.array([0.0, -0.05, 0.03]), hand, 0.0, "flat"),
    ]


def pull(s: Setting) -> list[Key]:
    """Take hold from above and drag towards the body."""
    return _drag(s, np.array([0.0, -0.20 * s.amplitude, 0.0]))


def slide_left(s: Setting) -> list[Key]:
    return _drag(s, np.array([-0.27 * s.amplitude, 0.0, 0.0]))


def slide_right(s: Setting) -> list[Key]:
    return _drag(s, np.array([0.27 * s.amplitude, 0.0, 0.0]))


def _drag(s: Setting, way: np.ndarray) -> list[Key]:
    grasp, hand, grip = s.grasp(), s.hand(), s.kind.grip
    s.spot = s.spot + way
    return [
        Key(0.0, grasp + 0.8 * s.away + s.offset, hand, 0.1),
        Key(0.20, grasp, hand, grip, event="attach"),
        Key(0.88, grasp + way, hand, grip, event="detach", free=False),
        Key(1.0, grasp + way + 0.5 * s.away, hand, 0.1),
    ]


def pour(s: Setting) -> list[Key]:
    """Bring the held vessel beside the bowl, tip it over, and right it again."""
    hand, grip = s.hand(), s.kind.grip
    over = s.partner + np.array([s.mirror * 0.09, -0.01, 0.21])
    start = over + np.array([s.mirror * 0.10, -0.03, 0.02]) * s.amplitude
    tipped = Rotation.from_euler("y", -s.mirror * min(1.9, 1.75 * s.amplitude)) * hand
    s.held_at = start
    return [
        Key(0.0, start, hand, grip),
        Key(0.22, over, hand, grip),
        Key(0.50, over, tipped, grip),
        Key(0.72, over + np.array([-0.015 * s.mirror, 0, 0]), tipped, grip),
        Key(1.0, over + np.array([0.02 * s.mirror, 0, 0]), hand, grip),
    ]


def shake(s: Setting) -> list[Key]:
    """Fast swings along a slanted line, holding the object up."""
    hand, grip = s.hand(), s.kind.grip
    swing = np.array([0.035 * s.flip, 0.0, 0.075]) * s.amplitude
    count = round(2 * s.cycles)
    keys = [Key(0.0, s.held_at, hand, grip)]
    for k in range(count):
        sign = 1 if k % 2 == 0 else -1
        keys.append(
            Key(0.06 + 0.86 * (k + 1) / count, s.held_at + sign * swing, hand, grip, free=False)
        )
    return [*keys, Key(1.0, s.held_at, hand, grip, free=False)]


def tap(s: Setting) -> list[Key]:
    """The tip of the index finger touches the top several times."""
    hand = s.hand("point")
    mirror = np.array([s.mirror, 1.0, 1.0])
    touch = (
        s.spot
        + np.array([0.0, 0.0, s.kind.height])
        - hand.apply((FINGERTIP - GRASP_POINT) * mirror)
    )
    up = touch + np.array([0.0, 0.0, 0.07 * s.amplitude])
    count = max(2, round(s.cycles))
    keys = [Key(0.0, up + s.offset, hand, 0.0, "point")]
    for k in range(count):
        first = 0.06 + 0.9 * k / count
        keys.append(Key(first + 0.45 / count, touch, hand, 0.0, "point", free=False))
        keys.append(Key(first + 0.88 / count, up, hand, 0.0, "point", free=False))
    return keys


def stack(s: Setting) -> list[Key]:
    """Bring the held object from the side over the base and set it down on it."""
    hand, grip = s.hand(), s.kind.grip
    target = s.grasp(s.partner)
    start = target + np.array([0.24 * s.flip * s.amplitude, -0.05, 0.03])
    s.held_at = start
    return [
        Key(0.0, start, hand, grip),
        Key(0.46, target + np.array([0, 0, 0.09]), hand, grip),
        Key(0.66, target + np.array([0, 0, 0.002]), hand, grip, free=False),
        Key(0.76, target, hand, 0.05, event="detach", free=False),
        Key(1.0, target + s.away, hand, 0.05),
    ]


def unstack(s: Setting) -> list[Key]:
    return backwards(stack(s))


def stir(s: Setting) -> list[Key]:
    """Circles of the spoon in the bowl."""
    hand, grip = s.hand(), s.kind.grip
    middle = s.grasp(s.partner) + np.array([0, 0, 0.012])
    turns, pieces = max(2.0, s.cycles * 0.8), 12
    count = round(turns * pieces)
    keys = []
    for k in range(count + 1):
        angle = s.phase + s.flip * 2 * np.pi * k / pieces
        circle = 0.048 * min(s.amplitude, 1.05) * np.array([np.cos(angle), np.sin(angle), 0.0])
        keys.append(Key(k / count, middle + circle, hand, grip, eased=False, free=False))
    s.held_at = keys[0].position
    return keys


def wipe(s: Setting) -> list[Key]:
    """Back and forth over the table with a sponge."""
    hand, grip = s.hand(), s.kind.grip
    middle = s.grasp()
    reach = np.array([0.15 * s.amplitude, 0.0, 0.0]) * s.flip
    count = max(3, round(1.6 * s.cycles))
    keys = [Key(0.0, middle - reach, hand, grip)]
    for k in range(count):
        sign = 1 if k % 2 == 0 else -1
        drift = np.array([0.0, 0.05 * (k + 1) / count, 0.0])
        keys.append(Key((k + 1) / count, middle + sign * reach + drift, hand, grip, free=False))
    s.held_at = keys[0].position
    return keys
