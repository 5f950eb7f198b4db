"""A human-like hand of capsules: four metacarpals, five fingers of two hinges each, a sleeved
forearm.

Hand frame (right hand): x to the thumb's far side (little finger), y along the fingers, z out of
the back of the hand; the origin is the wrist. A left hand is its mirror image in x. The wrist is a
free body that a soft weld ties to a mocap target; the fingers are driven by weak position
actuators, so they yield on contact. Sizes in meters, of an adult hand.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Side = Literal["right", "left"]

WRIST, TARGET, FOREARM = "wrist", "hand_target", "forearm"
GRASP_POINT = np.array([0.0, 0.10, -0.045])  # in the hand frame: between finger pads and palm
FINGER_JOINTS = 10  # thumb, index, middle, ring, little: two each, base first
PALM_LENGTH = 0.085
# name: (x at the knuckle, length of the two segments, radius), right hand
FINGERS = {
    "index": (-0.030, 0.042, 0.040, 0.0105),
    "middle": (-0.010, 0.046, 0.044, 0.0110),
    "ring": (0.011, 0.043, 0.040, 0.0105),
    "little": (0.031, 0.034, 0.032, 0.0095),
}
# joint angles in rad, thumb first: (base, tip) of thumb, index, middle, ring, little
OPEN = np.array([0.1, 0.1] + [0.15, 0.2] * 4)
FIST = np.array([0.9, 0.7] + [1.15, 1.25] * 4)
FLAT = np.array([0.0, 0.0] + [0.0, 0.05] * 4)
POINT = np.array([0.8, 0.6] + [0.0, 0.05] + [1.3, 1.4] * 3)
STYLES = {"wrap": (OPEN, FIST), "flat": (FLAT, FIST), "point": (POINT, POINT)}


@dataclass(frozen=True)
class HandLook:
    """Colors of one performer, RGB in [0, 1]."""

    skin: tuple[float, float, float]
    sleeve: tuple[float, float, float]
    thickness: float = 1.0  # times the usual one, of fingers and arm


def finger_targets(style: str, grip: float) -> np.ndarray:
    """Joint targets, float64 (10,) rad, of a finger style at grip 0 (open) .. 1 (closed)."""
    opened, closed = STYLES[style]
    return opened + grip * (closed - opened)


def hand_mjcf(side: Side) -> str:
    """Bodies of the hand and forearm."""
    mirror = 1.0 if side == "right" else -1.0
    geom = 'class="skin" type="capsule"'
    palm = "".join(
        f'<geom class="palm" type="capsule" size="{radius + 0.004:.4f}" '
        f'fromto="{mirror * x * 0.6:.4f} 0.004 0 {mirror * x:.4f} {PALM_LENGTH} 0"/>'
        for x, _, _, radius in FINGERS.values()
    )
    fingers = "".join(_finger(name, mirror, *spec) for name, spec in FINGERS.items())
    return f"""
    <body name="{TARGET}" mocap="true"/>
    <body name="{WRIST}" gravcomp="1">
      <freejoint/>
      <inertial pos="0 0.05 0" mass="1" diaginertia="0.004 0.004 0.004"/>
      {palm}
      {_thumb(mirror)}
      {fingers}
    </body>
    <body name="{FOREARM}" mocap="true">
      <geom name="variant_skin" {geom} fromto="0 0 0 0 -0.07 0" size="0.021"/>
      <geom name="variant_sleeve" {geom} fromto="0 -0.07 0 0 -0.34 0" size="0.028"/>
    </body>"""


def _finger(name: str, mirror: float, x: float, base: float, tip: float, radius: float) -> str:
    """Two capsules; the hinges bend towards -z (the palm)."""
    return f"""
      <body name="{name}" pos="{mirror * x:.4f} {PALM_LENGTH} 0" gravcomp="1">
        <joint name="{name}_base" class="finger" axis="-1 0 0"/>
        <geom class="skin" type="capsule" fromto="0 0 0 0 {base} 0" size="{radius}"/>
        <body pos="0 {base} 0" gravcomp="1">
          <joint name="{name}_tip" class="finger" axis="-1 0 0"/>
          <geom class="skin" type="capsule" fromto="0 0 0 0 {tip} 0" size="{radius * 0.92:.4f}"/>
        </body>
      </body>"""


def _thumb(mirror: float) -> str:
    """The thumb starts beside the wrist and closes across the palm."""
    m = -mirror
    return f"""
      <body name="thumb" pos="{m * 0.026:.4f} 0.022 -0.006" gravcomp="1">
        <joint name="thumb_base" class="finger" axis="-0.45 {-0.85 * mirror} 0.25"/>
        <geom class="skin" type="capsule" size="0.0135" fromto="0 0 0 {m * 0.030} 0.034 -0.012"/>
        <body pos="{m * 0.030:.4f} 0.034 -0.012" gravcomp="1">
          <joint name="thumb_tip" class="finger" axis="-0.6 {-0.6 * mirror} {-0.5 * mirror}"/>
          <geom class="skin" type="capsule" size="0.0115" fromto="0 0 0 {m * 0.008} 0.036 -0.006"/>
        </body>
      </body>"""


def actuators_mjcf() -> str:
    """Weak position actuators, base and tip of thumb, index, middle, ring, little, in that
    order.
    """
    names = [f"{finger}_{part}" for finger in ("thumb", *FINGERS) for part in ("base", "tip")]
    return "".join(f'<position joint="{name}" kp="0.06" kv="0.001"/>' for name in names)
