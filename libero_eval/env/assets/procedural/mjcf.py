"""A small writer of MJCF files in the form that LIBERO's object and arena classes read.

Files are described in YAML as lists of steps (see food.yaml): methods of `Part` with their arguments.
A mapping at the end of a step holds options; x, y and z among them turn the thing about that axis.
Lengths in meters, angles in radians, quaternions (w, x, y, z). An object file has one body named
`object` (the class puts the free joint there) and three placement sites beside it.
"""

import math
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from libero_eval.env.assets.procedural import pictures
from libero_eval.env.assets.procedural.shapes import Mesh, carton, lathe, rounded_plate

Vector = Sequence[float] | np.ndarray
Quaternion = tuple[float, float, float, float]

IDENTITY: Quaternion = (1.0, 0.0, 0.0, 0.0)
# Contact parameters: of LIBERO's own objects (stiff, rough), MuJoCo's defaults, which its stove uses,
# and those of the microwave, which touches other objects, never its own door.
PLAIN = {
    "solimp": "0.9 0.95 0.001",
    "solref": "0.02 1",
    "density": "1000",
    "friction": "1 0.005 0.0001",
}
CONTACTS = {
    "object": {
        "solimp": "0.998 0.998 0.001", "solref": "0.001 1", "density": "100", "friction": "0.95 0.3 0.1",
    },
    "plain": PLAIN,
    "oven": PLAIN
    | {"solimp": "0.8 0.9 0.01", "contype": "0", "conaffinity": "1", "margin": "0.001"},
}  # fmt: skip
VISUAL = {"contype": "0", "conaffinity": "0", "group": "1", "mass": "0"}


def text(values: Vector) -> str:
    """Numbers as an MJCF attribute, at most 6 significant digits."""
    return " ".join(f"{float(value):.6g}" for value in values)


def turn(axis: str, angle: float) -> Quaternion:
    """Rotation by `angle` (radians) about the coordinate axis "x", "y" or "z"."""
    x, y, z = (math.sin(angle / 2) if name == axis else 0.0 for name in "xyz")
    return (math.cos(angle / 2), x, y, z)


def compose(first: Vector, second: Vector) -> Quaternion:
    """Quaternion product: turn by `second`, then by `first`."""
    w1, x1, y1, z1 = first
    w2, x2, y2, z2 = second
    return (
        w1 * w2 - x1 * x2 - y1 * y2 - z1 * z2,
        w1 * x2 + x1 * w2 + y1 * z2 - z1 * y2,
        w1 * y2 - x1 * z2 + y1 * w2 + z1 * x2,
        w1 * z2 + x1 * y2 - y1 * x2 + z1 * w2,
    )


def rotate(quaternion: Vector, point: Vector) -> tuple[float, float, float]:
    """The point (x, y, z) turned by the quaternion."""
    w, x, y, z = quaternion
    return compose(compose(quaternion, (0.0, *point)), (w, -x, -y, -z))[1:]


def _taken_turn(options: dict[str, Any]) -> Quaternion:
    """The quaternion that `quat`, or x, y and z in their order, give; taken out of the options."""
    quat = options.pop("quat", IDENTITY)
    for axis in [name for name in options if name in ("x", "y", "z")]:
        quat = compose(quat, turn(axis, options.pop(axis)))
    return quat


class File:
    """One MJCF file under construction: assets, a world body, and the colors it is drawn in."""

    def __init__(
        self, path: Path, style: pictures.Style, name: str, colors: dict[str, str]
    ) -> None:
        """path: where it goes, with its pictures beside it. colors: names of its own for colors."""
        self.path, self.style, self._colors = path, style, colors
        self.root = ET.Element("mujoco", {"model": name})
        ET.SubElement(self.root, "compiler", {"angle": "radian"})
        self.asset = ET.SubElement(self.root, "asset")
        self.world = Part(self, ET.SubElement(self.root, "worldbody"))

    def color(self, name: str) -> pictures.Color:
        """That of one of its own names, or of a general one."""
        return self.style.color(self._colors.get(name, name))

    def write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        ET.indent(self.root)
        self.path.write_bytes(ET.tostring(self.root) + b"\n")


class Part:
    """A body of the file; every public method is a step that adds something to it, or to the assets."""

    def __init__(self, file: File, body: ET.Element, frame: Vector = IDENTITY) -> None:
        """frame: turns the coordinates of the steps into those of the body."""
        self._file, self.body, self._frame = file, body, frame

    def build(self, steps: Sequence[Any]) -> None:
        """Take the steps in order. A step is a list [method, argument, ...], a mapping that describes
        a body below this one, or a list of steps."""
        for step in steps:
            if isinstance(step, dict):
                options = {name: value for name, value in step.items() if name != "steps"}
                self.child(options.pop("body"), **options).build(step["steps"])
            elif not isinstance(step[0], str):
                self.build(step)
            else:
                self._take(*step)

    def _take(self, method: str, *arguments: Any) -> None:
        *plain, last = arguments
        if isinstance(last, dict):
            getattr(self, method)(*plain, **last)
        else:
            getattr(self, method)(*arguments)

    def each(
        self, step: list[Any], rows: list[Any], offset: Vector = (0, 0, 0), **options: Any
    ) -> None:
        """The same step for every row (size, place, options), moved by an offset."""
        for size, pos, *turned in rows:
            more = {**options, **(turned[0] if turned else {})}
            self._take(*step, size, np.add(pos, offset), more)

    def child(self, name: str | None, pos: Vector = (0, 0, 0), **turned: Any) -> "Part":
        """A body below this one; without a name, at its place."""
        placed = {"name": name or "", "pos": text(pos), "quat": text(_taken_turn(turned))}
        return Part(self._file, ET.SubElement(self.body, "body", placed if name else {}))

    def add(self, tag: str, **attributes: Any) -> ET.Element:
        """An element with these attributes."""
        return ET.SubElement(self.body, tag, {name: str(v) for name, v in attributes.items()})

    # -- assets

    def asset(self, tag: str, **attributes: Any) -> None:
        """An element of the file's assets."""
        ET.SubElement(self._file.asset, tag, {name: str(v) for name, v in attributes.items()})

    def texture(self, name: str, file: str, kind: str = "2d") -> None:
        """A texture file, its path relative to this MJCF file."""
        self.asset("texture", name=name, file=file, type=kind)

    def material(self, name: str, color: Any = (1, 1, 1), alpha: float = 1, **more: Any) -> None:
        """color: a name, red, green and blue, or a sum {name: factor}. No reflection: it costs a
        render pass."""
        if isinstance(color, str):
            color = self._file.color(color)
        elif isinstance(color, dict):
            parts = [np.multiply(self._file.color(part), factor) for part, factor in color.items()]
            color = np.sum(parts, axis=0)
        surface = {"reflectance": 0, "specular": 0.3, "shininess": 0.3, **more}
        self.asset("material", name=name, rgba=text([*color, alpha]), **surface)

    def label(self, words: str, ink: str = "cap", repeats: int = 4) -> None:
        """The material `label`: the printed picture of a packet in the colors `base` and `band`."""
        base, band, color = (self._file.color(name) for name in ("base", "band", ink))
        picture = pictures.label(base, band, words, color, repeats)
        pictures.save(self._file.path.with_name("texture_map.png"), picture)
        self.texture("tex-label", "texture_map.png")
        self.material("label", texture="tex-label")

    def wood(self, name: str, color: str, grain: int, file: str) -> None:
        """A wooden material, its picture drawn beside the file."""
        picture = pictures.surface(self._file.style, "wood", color, grain)
        pictures.save(self._file.path.with_name(file), picture)
        self.texture(f"tex-{name}", file, "cube")
        self.material(name, texture=f"tex-{name}")

    # -- geoms, seen or solid

    def _geom(self, size: Vector, pos: Vector, options: dict[str, Any], more: dict) -> None:
        kind, placed = options.pop("kind", "box"), compose(self._frame, _taken_turn(options))
        attributes = {"type": kind, "pos": text(rotate(self._frame, pos))}
        if len(size):
            attributes["size"] = text(size)
        if max(abs(a - b) for a, b in zip(placed, IDENTITY, strict=True)) > 1e-9:
            attributes["quat"] = text(placed)
        self.add("geom", **attributes, **more, **options)

    def solid(
        self, size: Vector, pos: Vector = (0, 0, 0), contact: str = "object", **options: Any
    ) -> None:
        """An invisible geom that collides (group 0); a box unless options say another `kind`."""
        self._geom(size, pos, options, {**CONTACTS[contact], "rgba": "0.8 0.8 0.8 0", "group": 0})

    def look(self, material: str, size: Vector, pos: Vector = (0, 0, 0), **options: Any) -> None:
        """A geom that is only seen (group 1)."""
        self._geom(size, pos, options, {**VISUAL, "material": material})

    def block(self, material: str, size: Vector, pos: Vector, **options: Any) -> None:
        """A geom that collides and is seen."""
        self.solid(size, pos, **options)
        seen = {name: options[name] for name in options if name in ("kind", "x", "y", "z")}
        self.look(material, size, pos, **seen)

    def prism(self, radius: float, half: float, pos: Vector) -> None:
        """Collision of an upright cylinder: an octagon from four crossing boxes."""
        size = (radius * np.cos(np.pi / 8), radius * np.sin(np.pi / 8), half)
        for index in range(4):
            self.solid(size, pos, z=np.pi / 4 * index)

    def ring(self, size: Vector, radius: float, center: Vector, lean: float, count: int) -> None:
        """Collision of an upright wall around an axis: `count` boxes at `radius` from `center`.

        size: half (thickness, width along the wall, height). lean: outward at the top, radians.
        """
        for index in range(count):
            azimuth = 2 * np.pi * index / count
            offset = (radius * np.cos(azimuth), radius * np.sin(azimuth), 0.0)
            self.solid(size, np.add(center, offset), z=azimuth, y=lean)

    def book(self, color: str, half: Vector, center: Vector) -> None:
        """A book standing on its lower edge, its back at -y."""
        self.solid(half, center)
        self.material("cover", color)
        self.material("paper", "paper")
        x, y, z = half
        board = 0.0016
        for sign in (-1, 1):
            self.look("cover", (board, y, z), np.add(center, ((x - board) * sign, 0, 0)))
        self.look("cover", (x, board, z), np.add(center, (0, board - y, 0)))
        self.look("paper", (x - 0.0031, y - 0.0042, z - 0.0032), center)

    # -- meshes, only seen

    def mesh(self, name: str, material: str, pos: Vector = (0, 0, 0), **turned: Any) -> None:
        """A mesh of the file once more."""
        more = {**VISUAL, "mesh": name, "material": material}
        self._geom((), pos, {**turned, "kind": "mesh"}, more)

    def _new_mesh(self, name: str, material: str, mesh: Mesh, pos: Vector, **turned: Any) -> None:
        faces = " ".join(map(str, mesh.faces.flat))
        attributes = {"vertex": text(mesh.vertices.ravel()), "face": faces, "inertia": "shell"}
        if mesh.coordinates is not None:
            attributes["texcoord"] = text(mesh.coordinates.ravel())
        self.asset("mesh", name=name, **attributes)
        self.mesh(name, material, pos, **turned)

    def lathe(
        self,
        name: str,
        material: str,
        profile: list[Any],
        pos: Vector = (0, 0, 0),
        stretch: Vector = (1, 1, 1),
        segments: int = 24,
        printed: bool = False,
        **turned: Any,
    ) -> None:
        """A turned profile of (radius, z), see `shapes.lathe`; stretched along the axes."""
        mesh = lathe(profile, segments, printed)
        mesh.vertices[:] *= stretch
        self._new_mesh(name, material, mesh, pos, **turned)

    def carton(self, half: Sequence[float], pos: Vector, roof: float) -> None:
        """A printed box with a gable roof."""
        self._new_mesh("body", "label", carton(half, roof), pos)

    def packet(self, half: Sequence[float], center: Vector) -> None:
        """A flat carton lying on its largest face, so that the words are on the top, along x."""
        self.solid(half, center)
        x, y, z = half
        box = carton((x, z, y))
        lying = box.vertices[:, [0, 2, 1]] * np.array([1, -1, 1])
        self._new_mesh("body", "label", Mesh(lying, box.faces, box.coordinates), center)

    def table_top(
        self, name: str, material: str, half: Sequence[float], center: Sequence[float]
    ) -> None:
        """A plate with well rounded corners."""
        self._new_mesh(name, material, rounded_plate(half, center), (0, 0, 0))

    # -- what physics and LIBERO's predicates read

    def site(
        self,
        name: str,
        size: Vector,
        pos: Vector,
        rgba: Vector = (0.8, 0.8, 0.8, 0),
        kind: str = "box",
        quat: Vector = IDENTITY,
    ) -> None:
        """A region; always in the coordinates of the body."""
        place = {"type": kind, "size": text(size), "pos": text(pos), "quat": text(quat)}
        self.add("site", name=name, **place, rgba=text(rgba), group=0)

    def weight(self, mass: float, center: Vector, inertia: Vector) -> None:
        """Mass (kg), center of mass and diagonal inertia (kg m2), in body coordinates."""
        self.add("inertial", mass=text([mass]), pos=text(center), diaginertia=text(inertia))

    def joint(self, name: str, kind: str, axis: Vector, span: Vector, damping: float) -> None:
        """A limited joint at the origin of the body."""
        limits = {"limited": "true", "range": text(span), "damping": text([damping])}
        self.add("joint", name=name, type=kind, axis=text(axis), pos="0 0 0", **limits)
