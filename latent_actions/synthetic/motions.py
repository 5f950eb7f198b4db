"""Hand paths: key poses in time, and what lies between them.

A path moves the grasp point (between finger pads and palm) and turns the hand; the hand frame is
that of `hand.py`. World frame: x right and y away as seen by the performer, z up, origin on the
table.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from latent_actions.synthetic.hand import FINGER_JOINTS, GRASP_POINT, Side, finger_targets

Event = Literal["attach", "detach"]
# rotations about x (pitch: fingers down is negative) and y (roll: thumb up) of a right hand,
# degrees
POSES = {
    "top": (-42.0, 0.0), "side": (-12.0, 78.0), "front": (-18.0, 0.0), "palm": (-28.0, 0.0),
    "stick": (-20.0, 65.0), "push": (62.0, 0.0), "point": (-38.0, 0.0), "rest": (-15.0, 20.0),
}  # fmt: skip


@dataclass(frozen=True)
class Key:
    """Where the hand is at time t (s). position: grasp point, (3,) m. grip: 0 open .. 1 closed.

    event happens on arrival. eased: the way to this key starts and ends at rest. free: the way to
    it may bend (not while a fixture guides the hand).
    """

    t: float
    position: np.ndarray
    rotation: Rotation
    grip: float
    style: str = "wrap"
    event: Event | None = None
    eased: bool = True
    free: bool = True


@dataclass(frozen=True)
class HandTrack:
    """A hand path sampled at N times.

    wrist: (N, 3) m; quaternion: (N, 4), w first; grip: (N,) 0..1; fingers: (N, 10) joint targets,
    rad.
    """

    wrist: np.ndarray
    quaternion: np.ndarray
    grip: np.ndarray
    fingers: np.ndarray


def hand_rotation(pose: str, side: Side, yaw: float = 0.0, pitch_deg: float = 0.0) -> Rotation:
    """Orientation of a named pose, turned by `yaw` (rad, about z) and tipped by `pitch_deg`."""
    pitch, roll = POSES[pose]
    mirrored = roll if side == "right" else -roll
    return (
        Rotation.from_euler("z", yaw)
        * Rotation.from_euler("x", pitch + pitch_deg, degrees=True)
        * Rotation.from_euler("y", mirrored, degrees=True)
    )


def wrist_of(position: np.ndarray, rotation: Rotation, side: Side) -> np.ndarray:
    """Wrist position(s) that put the grasp point at `position`, (3,) or (N, 3)."""
    mirror = np.array([1.0 if side == "right" else -1.0, 1.0, 1.0])
    return position - rotation.apply(GRASP_POINT * mirror)


class HandPath:
    """Keys joined by minimum-jerk ways; `bend` (3,) pushes the middle of a free way sideways, in
    parts of its length."""

    def __init__(self, keys: Sequence[Key], side: Side, bend: np.ndarray):
        times = [key.t for key in keys]
        if len(keys) < 2 or any(b <= a for a, b in pairwise(times)):
            raise ValueError(f"a path needs 2 or more keys with growing times, got {times}")
        self.keys, self.bend = list(keys), bend
        self.side: Side = side
        self.times = np.array(times)

    @property
    def end(self) -> float:
        return float(self.times[-1])

    def sample(self, times: np.ndarray) -> HandTrack:
        """The hand at the given times, s; before the first and after the last key it stands
        still.
        """
        times = np.clip(times, self.times[0], self.times[-1])
        index = np.clip(np.searchsorted(self.times, times, side="right"), 1, len(self.keys) - 1)
        wrist, quaternion = np.empty((len(times), 3)), np.empty((len(times), 4))
        grip, fingers = np.empty(len(times)), np.empty((len(times), FINGER_JOINTS))
        for segment in np.unique(index):
            rows = index == segment
            a, b = self.keys[segment - 1], self.keys[segment]
            u = np.clip((times[rows] - a.t) / (b.t - a.t), 0, 1)
            s = np.clip(u * u * u * (10 - 15 * u + 6 * u * u), 0, 1) if b.eased else u
            way = b.position - a.position
            position = a.position + s[:, None] * way
            if b.free:
                position = position + np.linalg.norm(way) * np.sin(np.pi * s)[:, None] * self.bend
            rotation = Slerp([0, 1], Rotation.concatenate([a.rotation, b.rotation]))(s)
            wrist[rows] = wrist_of(position, rotation, self.side)
            quaternion[rows] = rotation.as_quat()[:, [3, 0, 1, 2]]
            grip[rows] = a.grip + s * (b.grip - a.grip)
            before, after = finger_targets(a.style, a.grip), finger_targets(b.style, b.grip)
            fingers[rows] = before + s[:, None] * (after - before)
        return HandTrack(wrist, quaternion, grip, fingers)

    def events(self) -> list[tuple[float, Event]]:
        """(time, event) in order."""
        return [(key.t, key.event) for key in self.keys if key.event]


def shifted(keys: Sequence[Key], seconds: float) -> list[Key]:
    """The same keys, later."""
    return [replace(key, t=key.t + seconds) for key in keys]


def backwards(keys: Sequence[Key]) -> list[Key]:
    """The same way in reverse time: what was taken hold of is let go. Times start at the first
    key's.
    """
    first, last = keys[0].t, keys[-1].t
    opposite: dict[Event | None, Event | None] = {
        "attach": "detach",
        "detach": "attach",
        None: None,
    }
    result = []
    for position, key in enumerate(reversed(list(keys))):
        way = keys[len(keys) - position] if position else key  # the way into this key, reversed
        t = first + last - key.t
        event = opposite[key.event]
        result.append(replace(key, t=t, event=event, eased=way.eased, free=way.free))
    return result
