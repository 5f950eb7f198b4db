"""People besides the acting hand: the performer's body, the other hand, somebody who walks behind.

They move nothing, and masks leave them out; the other hand is seen at what is cut, washed or held. Each
is a body that is moved from frame to frame, or far below the room.
"""

from typing import Any

import numpy as np

from latent_actions.synthetic.hand import HandLook, Side
from latent_actions.synthetic.performance import forearm_quaternions
from latent_actions.synthetic.world import World

PEOPLE = ("body", "other_hand", "walker")
BEHIND = -1.05  # y of the way of somebody who walks behind the performer, m
_STILL = 'type="capsule" contype="0" conaffinity="0"'


def people_mjcf() -> str:
    """Bodies of PEOPLE; arms point along y from the shoulder, hands are at the origin."""
    trunk = f'<geom {_STILL} fromto="0 0 -0.7 0 0 0.22" size="0.17"/>'
    head = '<geom type="sphere" contype="0" conaffinity="0" size="0.1" pos="0 0 0.56"/>'
    arm = (
        f'<geom {_STILL} fromto="0 -0.07 0 0 -0.4 0" size="0.032"/>'
        f'<geom {_STILL} fromto="0 0.06 0 0 -0.07 0" size="0.026"/>'
        f'<geom {_STILL} fromto="-0.02 0.05 0 0.02 0.08 -0.01" size="0.03"/>'
    )
    parts = {"body": trunk + head, "other_hand": arm, "walker": trunk + head}
    return "".join(f'<body name="{n}" mocap="true">{g}</body>' for n, g in parts.items())


class People:
    """Who is seen in a take besides the hand, and where they are at its frames."""

    def __init__(
        self, rng: np.random.Generator, chance: float, side: Side, times: np.ndarray,
        helping: np.ndarray,
    ) -> None:  # fmt: skip
        """helping: where the other hand is at the action too, (T, 3) m; NaN where it is not."""
        self.cloth = tuple(rng.uniform(0.1, 0.9, 3))
        mirror = 1.0 if side == "right" else -1.0
        sway = _wave(rng, times, 3) * (0.04, 0.025, 0.012) * rng.uniform(0.2, 1)
        middle = np.array([-mirror * rng.uniform(0.12, 0.3), rng.uniform(-0.25, 0.05), 0.05])
        reach = rng.uniform(0, 1) ** 2 * np.array([0.12, 0.10, 0.06])
        hand = middle + np.abs(_wave(rng, times, 3)) * reach
        speed, start = rng.uniform(0.2, 0.7), rng.uniform(-1.2, 1.2)
        walk = 1.2 * (2 / np.pi) * np.arcsin(np.sin(np.pi / 2.4 * (start + speed * times)))
        self.position = {
            "body": np.array([0.0, -0.66, 0.0]) + sway,
            "other_hand": hand,
            "walker": np.stack([walk, np.full(len(times), BEHIND), 0.15 + 0 * walk], axis=1),
        }
        for name in PEOPLE:
            if rng.random() >= chance:
                self.position[name] = np.tile([0.0, 0.0, -5.0], (len(times), 1))
        helps = np.isfinite(helping)
        self.position["other_hand"] = np.where(helps, helping, self.position["other_hand"])
        other: Side = "left" if side == "right" else "right"
        upright = np.tile([1.0, 0.0, 0.0, 0.0], (len(times), 1))
        self.turn = {
            "body": upright,
            "walker": upright,
            "other_hand": forearm_quaternions(np.where(helps, helping, hand), other),
        }

    def enter(self, world: World, look: HandLook, index: int) -> None:
        """Into a world that was just reset: their colors, and their places at frame `index`."""
        for name in PEOPLE:
            rows = np.flatnonzero(world.owner == name)
            world.model.geom_rgba[rows, :3] = self.cloth
            bare = rows[1:] if name != "other_hand" or look.sleeve != look.skin else rows
            world.model.geom_rgba[bare, :3] = look.skin
        self.move(world, index)

    def move(self, world: World, index: int) -> None:
        """To their places at frame `index`; seen from the next simulation step on."""
        for name in PEOPLE:
            body: Any = world.model.body_mocapid[world.model.body(name).id]
            world.data.mocap_pos[body] = self.position[name][index]
            world.data.mocap_quat[body] = self.turn[name][index]


def _wave(rng: np.random.Generator, times: np.ndarray, count: int) -> np.ndarray:
    """Smooth random signals within about [-1, 1]: (T, count)."""
    frequency, phase = rng.uniform(0.1, 0.8, (2, count)), rng.uniform(0, 2 * np.pi, (2, count))
    waves = np.sin(2 * np.pi * times[:, None, None] * frequency + phase)
    return 0.65 * waves[:, 0] + 0.35 * waves[:, 1]
