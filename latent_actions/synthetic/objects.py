"""Things to act on, built from primitives: MJCF of each kind and where a hand takes hold of it.

Object frame: origin on the table under the object's middle, z up. Sizes in meters. Every free
object is a body `<kind>` with a free joint; a fixture is a fixed body `<kind>` with a moving part
`<kind>_part`.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np


@dataclass(frozen=True)
class Kind:
    """One kind of object.

    noun: how descriptions call it. grasp: where the hand's grasp point goes, in the object frame.
    pose: hand pose for grasping ("top" from above, "side" around an upright body, "front" from the
    user's side). grip: how far the fingers close, 0..1. geoms: MJCF of the body, colors by
    material class `a` and `b` filled in at run time. part: MJCF of the moving part with its joint,
    fixtures only. height: of the resting object, for stacking. solid: false for food, which a knife
    goes through and which stays where it is.
    """

    noun: str
    grasp: tuple[float, float, float]
    pose: str
    grip: float
    geoms: str
    part: str = ""
    height: float = 0.0
    mass: float = 0.15
    solid: bool = True


def _cylinder(radius: float, low: float, high: float, look: str = "a") -> str:
    middle, half = (low + high) / 2, (high - low) / 2
    return (
        f'<geom class="{look}" type="cylinder" size="{radius} {half:.4f}" pos="0 0 {middle:.4f}"/>'
    )


def _box(
    size: tuple[float, float, float], center: tuple[float, float, float], look="a", more=""
) -> str:
    half = " ".join(f"{s / 2:.4f}" for s in size)
    at = " ".join(f"{c:.4f}" for c in center)
    return f'<geom class="{look}" type="box" size="{half}" pos="{at}" {more}/>'


def _capsule(start: tuple, end: tuple, radius: float, look: str = "a") -> str:
    ends = " ".join(f"{v:.4f}" for v in (*start, *end))
    return f'<geom class="{look}" type="capsule" fromto="{ends}" size="{radius}"/>'


def _joint(name: str, attributes: str) -> str:
    """The joint of a fixture's moving part."""
    return f'<joint name="{name}_joint" class="fixture" {attributes}/>'


def _bowl(radius: float, height: float, walls: int = 8) -> str:
    """A flat base and a ring of leaning boxes."""
    parts = [_cylinder(radius * 0.6, 0.0, 0.012, "b")]
    for k in range(walls):
        angle = 2 * np.pi * k / walls
        x, y = 0.86 * radius * np.cos(angle), 0.86 * radius * np.sin(angle)
        width = 2 * radius * np.tan(np.pi / walls)
        parts.append(
            f'<geom class="a" type="box" size="0.005 {width / 2:.4f} {height / 2:.4f}" '
            f'pos="{x:.4f} {y:.4f} {height / 2:.4f}" euler="{angle:.4f} 0.44 0"/>'
        )
    return "".join(parts)


def _mug() -> str:
    handle = [(0.04, 0, 0.085), (0.07, 0, 0.075), (0.07, 0, 0.035), (0.04, 0, 0.022)]
    arcs = [_capsule(a, b, 0.007, "b") for a, b in pairwise(handle)]
    return _cylinder(0.042, 0.0, 0.10) + _cylinder(0.034, 0.10, 0.102, "b") + "".join(arcs)


FREE: dict[str, Kind] = {
    "can": Kind("can", (0, 0, 0.07), "side", 0.55,
        _cylinder(0.036, 0.0, 0.115) + _cylinder(0.0365, 0.035, 0.085, "b"), height=0.115),
    "bottle": Kind("bottle", (0, 0, 0.075), "side", 0.55, _cylinder(0.036, 0.0, 0.12)
        + _cylinder(0.016, 0.12, 0.185) + _cylinder(0.019, 0.185, 0.20, "b"), height=0.20),
    "mug": Kind("mug", (0, 0, 0.06), "side", 0.5, _mug(), height=0.10),
    "jar": Kind("jar", (0, 0, 0.06), "side", 0.5,
        _cylinder(0.043, 0.0, 0.085) + _cylinder(0.045, 0.085, 0.11, "b"), height=0.11),
    "carton": Kind("box", (0, 0, 0.09), "top", 0.4, _box((0.085, 0.06, 0.11), (0, 0, 0.055))
        + _box((0.087, 0.062, 0.035), (0, 0, 0.06), "b"), height=0.11),
    "block": Kind("block", (0, 0, 0.055), "top", 0.4, _box((0.07, 0.07, 0.07), (0, 0, 0.035)),
        height=0.07),
    "brick": Kind("brick", (0, 0, 0.045), "top", 0.4, _box((0.12, 0.09, 0.06), (0, 0, 0.03)),
        height=0.06),
    "ball": Kind("ball", (0, 0, 0.06), "top", 0.45,
        '<geom class="a" type="sphere" size="0.042" pos="0 0 0.042"/>', height=0.084),
    "bowl": Kind("bowl", (0.075, 0, 0.05), "top", 0.6, _bowl(0.085, 0.055), height=0.055, mass=0.4),
    "spoon": Kind("spoon", (0, 0, 0.17), "stick", 0.85, _capsule((0, 0, 0.03), (0, 0, 0.20), 0.008)
        + '<geom class="b" type="ellipsoid" size="0.02 0.01 0.028" pos="0 0 0.028"/>', height=0.2),
    "sponge": Kind("sponge", (0, 0, 0.035), "top", 0.35, _box((0.12, 0.08, 0.028), (0, 0, 0.014))
        + _box((0.12, 0.08, 0.012), (0, 0, 0.034), "b"), height=0.04),
    # the edge of the blade is at the bottom, its middle at the origin
    "knife": Kind("knife", (0, -0.13, 0.03), "top", 0.8, _box((0.004, 0.16, 0.036), (0, 0, 0.018))
        + _capsule((0, -0.08, 0.028), (0, -0.19, 0.028), 0.011, "dark")),
    "cucumber": Kind("cucumber", (0, 0, 0.03), "top", 0.5,
        _capsule((-0.09, 0, 0.022), (0.09, 0, 0.022), 0.022)
        + _box((0.26, 0.20, 0.004), (0, 0, 0.002), "b"), height=0.044, solid=False),
}  # fmt: skip

DRAWER_TRAVEL_M = 0.15
LID_OPEN_RAD = 1.75
DOOR_HINGE = (-0.15, -0.085)  # of the cabinet's door, in the cabinet's frame
DOOR_OPEN_RAD = 1.45

FIXTURES: dict[str, Kind] = {
    "drawer": Kind("drawer", (0, -0.155, 0.065), "front", 0.7,
        _box((0.25, 0.19, 0.014), (0, 0.02, 0.127)) + _box((0.25, 0.19, 0.01), (0, 0.02, 0.005))
        + _box((0.014, 0.19, 0.12), (-0.118, 0.02, 0.064))
        + _box((0.014, 0.19, 0.12), (0.118, 0.02, 0.064))
        + _box((0.25, 0.012, 0.12), (0, 0.11, 0.064)),
        part=_joint("drawer", 'type="slide" axis="0 -1 0" range="0 0.16"')
        + _box((0.218, 0.014, 0.104), (0, -0.082, 0.066), "b")
        + _box((0.21, 0.15, 0.008), (0, 0.0, 0.02), "b")
        + _box((0.008, 0.15, 0.06), (-0.1, 0.0, 0.045), "b")
        + _box((0.008, 0.15, 0.06), (0.1, 0.0, 0.045), "b")
        + _capsule((-0.04, -0.115, 0.066), (0.04, -0.115, 0.066), 0.009, "dark")),
    "chest": Kind("box", (0, -0.105, 0.115), "front", 0.6, _box((0.22, 0.16, 0.01), (0, 0, 0.005))
        + _box((0.22, 0.01, 0.09), (0, -0.075, 0.05)) + _box((0.22, 0.01, 0.09), (0, 0.075, 0.05))
        + _box((0.01, 0.15, 0.09), (-0.105, 0, 0.05)) + _box((0.01, 0.15, 0.09), (0.105, 0, 0.05)),
        part=_joint("chest", 'axis="-1 0 0" pos="0 0.08 0.1" range="-0.1 2.0"')
        + _box((0.23, 0.17, 0.016), (0, 0, 0.105), "b")
        + _box((0.05, 0.03, 0.018), (0, -0.095, 0.105), "dark")),
    "knob": Kind("knob", (0, 0, 0.085), "top", 0.5, _box((0.20, 0.20, 0.045), (0, 0, 0.0225)),
        part=_joint("knob", 'axis="0 0 1" pos="0 0 0"')
        + _cylinder(0.055, 0.045, 0.075, "b") + _box((0.10, 0.022, 0.03), (0, 0, 0.085), "dark")),
    "lid": Kind("lid of the jar", (0, 0, 0.11), "top", 0.5, _cylinder(0.062, 0.0, 0.085),
        part=_joint("lid", 'axis="0 0 1" pos="0 0 0"')
        + _cylinder(0.066, 0.087, 0.112, "b") + _box((0.13, 0.016, 0.006), (0, 0, 0.114), "dark")),
    "button": Kind("button", (0, 0, 0.10), "palm", 0.0, _box((0.15, 0.15, 0.055), (0, 0, 0.0275)),
        part=_joint("button", 'type="slide" axis="0 0 -1" range="0 0.03" stiffness="40" springref="0"')
        + _cylinder(0.045, 0.05, 0.085, "b")),
    "cabinet": Kind("cabinet", (0.115, -0.125, 0.14), "front", 0.7,
        _box((0.30, 0.16, 0.01), (0, 0, 0.005))
        + _box((0.30, 0.16, 0.01), (0, 0, 0.295)) + _box((0.30, 0.01, 0.29), (0, 0.08, 0.15))
        + _box((0.01, 0.16, 0.29), (-0.145, 0, 0.15)) + _box((0.01, 0.16, 0.29), (0.145, 0, 0.15))
        + _box((0.28, 0.14, 0.008), (0, 0, 0.15), "b"),
        part=_joint("cabinet", 'axis="0 0 -1" pos="-0.15 -0.085 0" range="-0.02 1.9" frictionloss="0.6"')
        + _box((0.30, 0.012, 0.29), (0, -0.09, 0.15), "b")
        + _capsule((0.115, -0.115, 0.10), (0.115, -0.115, 0.18), 0.009, "dark")),
}  # fmt: skip

KINDS = {**FREE, **FIXTURES}


def object_mjcf(name: str, kind: Kind) -> str:
    """The body of a free object or a fixture; its geoms are in group 4 (hidden) until it is on
    stage.
    """
    if not kind.part:
        return (
            f'<body name="{name}" pos="0 0 -5" gravcomp="1"><freejoint name="{name}_free"/>'
            f'<inertial pos="0 0 {kind.height / 2:.4f}" mass="{kind.mass}" '
            f'diaginertia="0.0004 0.0004 0.0004"/>{kind.geoms}</body>'
        )
    return (
        f'<body name="{name}" pos="0 0 -5">{kind.geoms}'
        f'<body name="{name}_part" gravcomp="1"><inertial pos="0 0 0.05" mass="0.2" '
        f'diaginertia="0.0005 0.0005 0.0005"/>{kind.part}</body></body>'
    )


def distractor_mjcf(name: str, kind: Kind) -> str:
    """A copy of a free object that stands still and is only seen."""
    return f'<body name="{name}" pos="0 0 -5">{kind.geoms}</body>'
