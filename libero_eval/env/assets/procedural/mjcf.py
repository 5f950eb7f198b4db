"""A small writer of MJCF files in the form that LIBERO's object and arena classes read.

Lengths in meters, angles in radians, quaternions (w, x, y, z). An object file has one body named
`object` (the class puts the free joint there) and three placement sites beside it.
"""

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from libero_eval.env.assets.procedural.quaternions import IDENTITY, Vector, compose, rotate, turn
from libero_eval.env.assets.procedural.shapes import Mesh

# Contact parameters of LIBERO's own objects: stiff, rough, condim 3.
CONTACT = {
    "solimp": "0.998 0.998 0.001",
    "solref": "0.001 1",
    "density": "100",
    "friction": "0.95 0.3 0.1",
}
# MuJoCo's defaults, which LIBERO's stove and microwave use.
PLAIN = {
    "solimp": "0.9 0.95 0.001",
    "solref": "0.02 1",
    "density": "1000",
    "friction": "1 0.005 0.0001",
}
WHITE = (1.0, 1.0, 1.0, 1.0)
INVISIBLE = {"rgba": "0.8 0.8 0.8 0"}
VISUAL = {"contype": "0", "conaffinity": "0", "group": "1", "mass": "0"}


def text(values: Vector) -> str:
    """Numbers as an MJCF attribute, at most 6 significant digits."""
    return " ".join(f"{float(value):.6g}" for value in values)


@dataclass(frozen=True, kw_only=True)
class Part:
    """A body of the file, with a frame in which its geoms are described."""

    body: ET.Element
    frame: Vector = IDENTITY  # turns described coordinates into those of the body

    def _geom(self, kind: str, size: Vector, pos: Vector, quat: Vector, more: dict) -> None:
        attributes = {"type": kind, "pos": text(rotate(self.frame, pos))}
        if size:
            attributes["size"] = text(size)
        placed = compose(self.frame, quat)
        if max(abs(a - b) for a, b in zip(placed, IDENTITY, strict=True)) > 1e-9:
            attributes["quat"] = text(placed)
        ET.SubElement(self.body, "geom", {**attributes, **more})

    def solid(
        self,
        kind: str,
        size: Vector,
        pos: Vector = (0, 0, 0),
        quat: Vector = IDENTITY,
        *,
        contact: Mapping[str, str] = CONTACT,
        **named: str,
    ) -> None:
        """Add an invisible geom that collides (group 0). named: its name or mass, if any."""
        more = {**contact, **INVISIBLE, "group": "0", **named}
        self._geom(kind, size, pos, quat, more)

    def look(
        self,
        kind: str,
        size: Vector,
        material: str,
        pos: Vector = (0, 0, 0),
        quat: Vector = IDENTITY,
        **named: str,
    ) -> None:
        """Add a geom that is only seen (group 1). named: its name, if any."""
        self._geom(kind, size, pos, quat, {**VISUAL, "material": material, **named})

    def block(
        self, size: Vector, material: str, pos: Vector = (0, 0, 0), quat: Vector = IDENTITY
    ) -> None:
        """Add a box that collides and is seen. size: half lengths."""
        self.solid("box", size, pos, quat)
        self.look("box", size, material, pos, quat)

    def mesh(
        self, name: str, material: str, pos: Vector = (0, 0, 0), quat: Vector = IDENTITY
    ) -> None:
        """Add a mesh that is only seen."""
        self._geom("mesh", (), pos, quat, {**VISUAL, "mesh": name, "material": material})

    def site(
        self,
        name: str,
        size: Vector,
        pos: Vector,
        *,
        quat: Vector = IDENTITY,
        rgba: Vector = (0.8, 0.8, 0.8, 0),
        kind: str = "box",
    ) -> None:
        """Add a region site; always in the coordinates of the body."""
        attributes = {"name": name, "type": kind, "size": text(size), "pos": text(pos)}
        attributes |= {"quat": text(quat), "rgba": text(rgba), "group": "0"}
        ET.SubElement(self.body, "site", attributes)

    def weight(self, mass: float, center: Vector, inertia: Vector) -> None:
        """Set mass (kg), center of mass and diagonal inertia (kg m2), in body coordinates."""
        attributes = {"mass": text([mass]), "pos": text(center), "diaginertia": text(inertia)}
        ET.SubElement(self.body, "inertial", attributes)

    def joint(self, name: str, kind: str, axis: Vector, span: Vector, damping: float) -> None:
        """Add a limited joint at the origin of the body."""
        attributes = {"name": name, "type": kind, "axis": text(axis), "pos": "0 0 0"}
        attributes |= {"limited": "true", "range": text(span), "damping": text([damping])}
        ET.SubElement(self.body, "joint", attributes)

    def child(self, name: str, pos: Vector = (0, 0, 0), quat: Vector = IDENTITY) -> "Part":
        """Add a body below this one."""
        attributes = {"name": name, "pos": text(pos), "quat": text(quat)}
        return Part(body=ET.SubElement(self.body, "body", attributes))


class Model:
    """One MJCF file under construction: assets and a world body."""

    def __init__(self, name: str) -> None:
        self.root = ET.Element("mujoco", {"model": name})
        ET.SubElement(self.root, "compiler", {"angle": "radian"})
        self.asset = ET.SubElement(self.root, "asset")
        self.world = ET.SubElement(self.root, "worldbody")

    def texture(self, name: str, file: str, kind: str = "2d") -> None:
        """Declare a texture file, its path relative to this MJCF file."""
        ET.SubElement(self.asset, "texture", {"name": name, "file": file, "type": kind})

    def material(self, name: str, rgba: Vector = WHITE, **more: str) -> str:
        """Declare a material, return its name. No reflection: it costs a render pass."""
        attributes = {"name": name, "rgba": text(rgba), "reflectance": "0"}
        attributes |= {"specular": "0.3", "shininess": "0.3", **more}
        ET.SubElement(self.asset, "material", attributes)
        return name

    def mesh(self, name: str, mesh: Mesh) -> str:
        """Declare a mesh written into the file itself and return its name."""
        attributes = {
            "name": name,
            "vertex": text(mesh.vertices.ravel()),
            "face": " ".join(str(index) for index in mesh.faces.ravel()),
            "inertia": "shell",
        }
        if mesh.coordinates is not None:
            attributes["texcoord"] = text(mesh.coordinates.ravel())
        ET.SubElement(self.asset, "mesh", attributes)
        return name

    def write(self, path: Path) -> None:
        """Write the file, indented."""
        path.parent.mkdir(parents=True, exist_ok=True)
        ET.indent(self.root)
        path.write_bytes(ET.tostring(self.root) + b"\n")


def object_model(
    name: str, bottom: float = -0.06, top: float = 0.04, radius: float = 0.025
) -> tuple[Model, Part]:
    """A file with one object: (the file, its body `object`).

    bottom, top, radius: what LIBERO's placement samplers read (not exact sizes of the object).
    """
    model = Model(name)
    outer = ET.SubElement(model.world, "body")
    body = ET.SubElement(outer, "body", {"name": "object"})
    sites = {
        "bottom_site": (0, 0, bottom),
        "top_site": (0, 0, top),
        "horizontal_radius_site": (radius, radius, 0),
    }
    for site, position in sites.items():
        attributes = {"name": site, "pos": text(position), "size": "0.005", "rgba": "0 0 0 0"}
        ET.SubElement(outer, "site", attributes)
    return model, Part(body=body)


def prism(part: Part, radius: float, half: float, pos: Vector, boxes: int = 4) -> None:
    """Collision of an upright cylinder: an octagon (of 2 x `boxes` sides) from crossing boxes."""
    step = np.pi / (2 * boxes)
    size = (radius * np.cos(step), radius * np.sin(step), half)
    for index in range(boxes):
        part.solid("box", size, pos, turn("z", 2 * step * index))


def ring(
    part: Part,
    size: Vector,
    radius: float,
    center: Vector,
    *,
    lean: float = 0.0,
    count: int = 12,
) -> None:
    """Collision of an upright wall around an axis: `count` boxes at `radius` from `center`.

    size: half (thickness, width along the wall, height). lean: outward at the top, radians.
    """
    for index in range(count):
        azimuth = 2 * np.pi * index / count
        offset = (radius * np.cos(azimuth), radius * np.sin(azimuth), 0.0)
        pos = [c + o for c, o in zip(center, offset, strict=True)]
        part.solid("box", size, pos, compose(turn("z", azimuth), turn("y", lean)))
