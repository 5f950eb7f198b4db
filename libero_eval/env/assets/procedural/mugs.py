"""The three mugs of LIBERO-10 (`turbosquid_objects/`): a cup beside the origin, and a handle."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from libero_eval.env.assets.procedural.mjcf import Part, Vector, object_model, prism, ring
from libero_eval.env.assets.procedural.quaternions import turn
from libero_eval.env.assets.procedural.shapes import lathe
from libero_eval.env.assets.procedural.style import Style

FOLDER = "turbosquid_objects"


@dataclass(frozen=True, kw_only=True)
class Wall:
    """One ring of wall boxes: half (thickness, width, height), radius and height of the center."""

    size: Vector
    radius: float
    z: float
    lean: float


@dataclass(frozen=True, kw_only=True)
class Mug:
    """A cup around (x, y), with a floor, rings of wall and handle boxes in the plane y = 0."""

    name: str
    color: str
    center: tuple[float, float]
    floor: tuple[float, float, float]  # radius, half height, height of the center
    walls: tuple[Wall, ...]
    handle: tuple[tuple[Vector, Vector, float], ...]  # half size, place, turn about y
    profile: tuple[tuple[float, float], ...]  # what is seen: radius and height, out and in
    weight: tuple[float, Vector, Vector]


PORCELAIN = Mug(
    name="porcelain_mug",
    color="porcelain",
    center=(0.0150, -0.0015),
    floor=(0.0255, 0.0052, 0.0076),
    walls=(
        Wall(size=(0.0016, 0.0155, 0.0189), radius=0.0345, z=0.0239, lean=0.412),
        Wall(size=(0.0024, 0.0190, 0.0326), radius=0.0440, z=0.0758, lean=0.0),
    ),
    handle=(
        ((0.0038, 0.0080, 0.0198), (-0.0595, 0, 0.0560), 0.0),
        ((0.0198, 0.0080, 0.0038), (-0.0416, 0, 0.0286), 0.50),
        ((0.0198, 0.0080, 0.0038), (-0.0463, 0, 0.0834), -0.605),
    ),
    profile=(
        (0, 0.0022), (0.027, 0.0022), (0.0420, 0.036), (0.0475, 0.060), (0.0475, 0.1095),
        (0.0440, 0.1095), (0.0440, 0.060), (0.038, 0.038), (0.024, 0.0130), (0, 0.0130),
    ),
    weight=(0.0165, (0.0102, -0.001, 0.0546), (2.80e-5, 3.41e-5, 2.81e-5)),
)  # fmt: skip
RED = Mug(
    name="red_coffee_mug",
    color="red_mug",
    center=(-0.0160, -0.0012),
    floor=(0.0270, 0.0025, 0.0053),
    walls=(Wall(size=(0.0035, 0.0180, 0.0664), radius=0.0340, z=0.0645, lean=0.108),),
    handle=(
        ((0.0029, 0.0076, 0.0300), (0.0385, 0.0011, 0.0525), 0.745),
        ((0.0027, 0.0069, 0.0192), (0.0547, 0.0011, 0.0944), -0.10),
        ((0.0160, 0.0069, 0.0027), (0.0370, 0.0011, 0.1116), -0.14),
    ),
    profile=(
        (0, -0.0016), (0.0300, -0.0016), (0.0320, 0.010), (0.0430, 0.128), (0.0440, 0.1308),
        (0.0400, 0.1308), (0.0290, 0.0085), (0, 0.0078),
    ),
    weight=(0.0294, (-0.0152, -0.0028, 0.0624), (6.04e-5, 6.29e-5, 3.44e-5)),
)  # fmt: skip
YELLOW = Mug(
    name="white_yellow_mug",
    color="yellow_mug",
    center=(-0.0182, 0.0),
    floor=(0.0265, 0.0025, 0.0027),
    walls=(
        Wall(size=(0.0041, 0.0110, 0.0103), radius=0.0310, z=0.0106, lean=0.631),
        Wall(size=(0.0041, 0.0120, 0.0436), radius=0.0425, z=0.0593, lean=0.130),
    ),
    handle=(
        ((0.0041, 0.0088, 0.0292), (0.0641, 0, 0.0560), 0.0),
        ((0.0230, 0.0088, 0.0041), (0.0420, 0, 0.0266), -0.20),
        ((0.0190, 0.0088, 0.0041), (0.0490, 0, 0.0793), -0.11),
    ),
    profile=(
        (0, 0.0001), (0.0270, 0.0001), (0.0400, 0.0155), (0.0425, 0.0260), (0.0518, 0.1015),
        (0.0505, 0.1035), (0.0430, 0.1030), (0.0345, 0.0230), (0.0230, 0.0060), (0, 0.0052),
    ),
    weight=(0.0309, (-0.0137, 0.0005, 0.051), (5.09e-5, 6.10e-5, 5.87e-5)),
)  # fmt: skip


def write_mugs(folder: Path, style: Style) -> None:
    """Write the three mugs below `folder`."""
    for mug in (PORCELAIN, RED, YELLOW):
        model, part = object_model(mug.name)
        part.weight(*mug.weight)
        glaze = model.material("glaze", style.rgba(mug.color), specular="0.6", shininess="0.6")
        _collide(part, mug)
        cup = model.mesh("cup", lathe(mug.profile))
        part.mesh(cup, glaze, (*mug.center, 0))
        for size, pos, angle in mug.handle:
            part.look("box", size, glaze, pos, turn("y", angle))
        model.write(folder / FOLDER / mug.name / f"{mug.name}.xml")


def _collide(part: Part, mug: Mug) -> None:
    """Floor, walls and handle of a mug as boxes."""
    radius, half, height = mug.floor
    prism(part, radius, half, (*mug.center, height))
    for wall in mug.walls:
        count = max(8, int(np.ceil(np.pi * wall.radius / wall.size[1])))
        ring(part, wall.size, wall.radius, (*mug.center, wall.z), lean=wall.lean, count=count)
    for size, pos, angle in mug.handle:
        part.solid("box", size, pos, turn("y", angle))
