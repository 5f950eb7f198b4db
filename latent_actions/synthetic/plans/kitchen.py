"""What kitchens add to the actions of a table: cut, slice, wash, hold, add."""

import numpy as np
from scipy.spatial.transform import Rotation

from latent_actions.synthetic.motions import Key
from latent_actions.synthetic.objects import KINDS
from latent_actions.synthetic.plans.setting import Setting


def _top(s: Setting, partner: str) -> np.ndarray:
    """Grasp point of a knife whose edge lies on the partner."""
    return s.grasp(s.partner + np.array([0.0, 0.0, KINDS[partner].height]))


def cut(s: Setting) -> list[Key]:
    """The knife is drawn forth and back through the food, deeper with each stroke, and raised."""
    hand, grip, top = s.hand(), s.kind.grip, _top(s, "cucumber")
    stroke = Rotation.from_euler("z", s.yaw).apply([0.0, 0.045 * s.amplitude, 0.0])
    deep = np.array([0.0, 0.0, -0.9 * KINDS["cucumber"].height])
    count = max(2, round(1.2 * s.cycles))
    above = top + np.array([0.0, -0.02, 0.07 * s.amplitude])
    keys = [Key(0.0, above, hand, grip), Key(0.16, top - stroke, hand, grip)]
    for k in range(count):
        share = (k + 1) / count
        end = top + (1 if k % 2 == 0 else -1) * stroke + share * deep
        keys.append(Key(0.16 + 0.66 * share, end, hand, grip, free=False))
    s.held_at = above
    return [*keys, Key(1.0, above + 0.3 * s.offset, hand, grip)]


def slice_(s: Setting) -> list[Key]:
    """The knife goes down through the food and up again, each time a little further along it."""
    hand, grip, top = s.hand(), s.kind.grip, _top(s, "cucumber")
    up = np.array([0.0, -0.015, 0.035 * s.amplitude])
    down = np.array([0.0, 0.015, -0.9 * KINDS["cucumber"].height])
    count = max(3, round(1.6 * s.cycles))
    way = np.array([-0.10 * s.mirror, 0.0, 0.0]) * min(1.0, count / 8)
    keys = [Key(0.0, top + up - way / 2, hand, grip)]
    for k in range(count):
        along = way * ((k + 1) / count - 0.5)
        keys.append(Key((k + 0.5) / count, top + down + along, hand, grip, free=False))
        keys.append(Key((k + 1) / count, top + up + along, hand, grip, free=False))
    s.held_at = keys[0].position
    return keys


def wash(s: Setting) -> list[Key]:
    """Small quick rubs and turns of the wrist above the bowl."""
    hand, grip = s.hand(), s.kind.grip
    middle = s.partner + np.array([0.02 * s.mirror, -0.02, 0.15])
    rub = np.array([0.018 * s.flip, 0.012, 0.012]) * s.amplitude
    count = max(4, round(2.4 * s.cycles))
    turns = [
        Rotation.from_euler("y", sign * 0.35 * s.amplitude * s.mirror) * hand for sign in (1, -1)
    ]
    keys = [Key(0.0, middle - rub, turns[1], grip)]
    for k in range(count):
        sign = 1 if k % 2 == 0 else -1
        drift = 0.3 * s.offset * (k + 1) / count
        keys.append(
            Key((k + 1) / count, middle + sign * rub + drift, turns[k % 2], grip, free=False)
        )
    s.held_at = keys[0].position
    return keys


def hold(s: Setting) -> list[Key]:
    """The hand keeps an object where it is, with no more than a slow drift."""
    hand, grip = s.hand(), s.kind.grip
    first = s.grasp() + np.array([0.0, -0.04, 0.03]) + np.abs(s.offset) * (0, 0, 4)
    s.held_at = first
    return [
        Key(0.0, first, hand, grip),
        Key(0.5, first + 0.25 * s.offset, hand, grip),
        Key(1.0, first + 0.1 * s.offset[::-1], hand, grip),
    ]


def add(s: Setting) -> list[Key]:
    """Carry what is held over the bowl, let it fall in, and go back."""
    hand, grip = s.hand(), s.kind.grip
    over = s.grasp(s.partner) + np.array([0.0, 0.0, 0.075])
    start = over + np.array([s.mirror * 0.17, -0.12, 0.05]) * s.amplitude + s.offset
    s.held_at = start
    return [
        Key(0.0, start, hand, grip),
        Key(0.46, over, hand, grip),
        Key(0.58, over, hand, 0.05, event="detach", free=False),
        Key(1.0, start + np.array([0.0, 0.0, 0.02]), hand, 0.05),
    ]
