"""The articulated fixtures: cabinets with three drawers, stove with a knob, microwave with a door.

Bodies, joints and region sites have LIBERO's names and order: predicates look them up by name,
and init states store the joints in the order of the file.
"""

from pathlib import Path

from libero_eval.env.assets.procedural.mjcf import PLAIN, Model, Part, Vector, object_model, prism
from libero_eval.env.assets.procedural.quaternions import turn
from libero_eval.env.assets.procedural.shapes import lathe
from libero_eval.env.assets.procedural.style import Style

FOLDER = "articulated_objects"
# The microwave touches other objects, never its own door.
OVEN_CONTACT = PLAIN | {
    "solimp": "0.8 0.9 0.01",
    "contype": "0",
    "conaffinity": "1",
    "margin": "0.001",
}


def write_fixtures(folder: Path, style: Style) -> None:
    """Write the fixtures below `folder`."""
    _cabinet(folder / FOLDER, style, "white_cabinet", "cabinet")
    _cabinet(folder / FOLDER, style, "wooden_cabinet", "dark_wood")
    _stove(folder / FOLDER, style)
    _microwave(folder / FOLDER, style)


CABINET_BOARDS: tuple[tuple[Vector, Vector], ...] = (
    ((0.1150, 0.0023, 0.1055), (0.0035, 0.1094, 0.1140)),
    ((0.1229, 0.0898, 0.0023), (0.0040, 0.0164, 0.0069)),
    ((0.0052, 0.0954, 0.1058), (-0.1122, 0.0162, 0.1143)),
    ((0.0052, 0.0954, 0.1058), (0.1190, 0.0162, 0.1143)),
    ((0.1118, 0.0896, 0.0011), (0.0038, 0.0187, 0.1494)),
    ((0.1118, 0.0896, 0.0011), (0.0039, 0.0187, 0.0793)),
    ((0.1118, 0.0896, 0.0011), (0.0041, 0.0187, 0.0093)),
    ((0.1273, 0.0941, 0.0014), (0.0039, 0.0158, 0.2216)),
)
# Boards of the top drawer: front, inner front, back, two sides, floor.
DRAWER_BOARDS: tuple[tuple[Vector, Vector], ...] = (
    ((0.1093, 0.0027, 0.0343), (0.0033, -0.0752, 0.1831)),
    ((0.1068, 0.0036, 0.0321), (0.0033, -0.0684, 0.1836)),
    ((0.1068, 0.0036, 0.0321), (0.0033, 0.0908, 0.1836)),
    ((0.0027, 0.0815, 0.0315), (-0.1019, 0.0111, 0.1836)),
    ((0.0027, 0.0815, 0.0315), (0.1089, 0.0111, 0.1836)),
    ((0.1070, 0.0810, 0.0040), (0.0035, 0.0105, 0.1551)),
)
DRAWER_HANDLE: tuple[tuple[Vector, Vector], ...] = (
    ((0.0445, 0.0077, 0.0082), (-0.0028, -0.1016, 0.1839)),
    ((0.0051, 0.0106, 0.0055), (0.0292, -0.0835, 0.1839)),
    ((0.0051, 0.0106, 0.0056), (-0.0356, -0.0835, 0.1839)),
)
# Level: boards and handle lower than those of the top drawer by, height of the region site.
DRAWERS: tuple[tuple[str, float, float, float], ...] = (
    ("top", 0.0, 0.0, 0.18563),
    ("middle", 0.0697, 0.0735, 0.11690),
    ("bottom", 0.1384, 0.1428, 0.04701),
)


def _cabinet(folder: Path, style: Style, name: str, color: str) -> None:
    """A cabinet with three drawers that slide along y (open: towards -y)."""
    model, part = object_model(name, -0.045, 0.045, 0.045)
    white = model.material("white", style.rgba(color))
    front = model.material("front", (*(0.93 * c for c in style.color(color)), 1))
    metal = model.material("metal", style.rgba("handle"), specular="0.7")
    base = part.child("base")
    base.weight(0.1762, (0.0035, 0.0383, 0.1078), (1.57e-3, 2.45e-3, 2.21e-3))
    base.site(
        "top_side",
        (0.12534, 0.09438, 0.00147),
        (0.00354, 0.01567, 0.22152),
        rgba=(0.8, 0.8, 0, 0),
    )
    for size, pos in CABINET_BOARDS:
        base.block(size, white, pos)
    for level, drop, handle_drop, height in DRAWERS:
        drawer = base.child(f"cabinet_{level}")
        drawer.weight(3, (0, 0, 0), (1, 1, 1))
        drawer.joint(f"{level}_level", "slide", (0, 1, 0), (-0.16, 0.01), 50)
        region = ((0.02993, 0.07561, 0.10224), (0.00328, 0.01128, height))
        drawer.site(f"{level}_region", *region, quat=(0.70711, 0, 0.70711, 0))
        for size, (x, y, z) in DRAWER_BOARDS:
            drawer.block(size, front, (x, y, z - drop))
        for size, (x, y, z) in DRAWER_HANDLE:
            drawer.block(size, metal, (x, y, z - handle_drop))
    model.write(folder / f"{name}.xml")


def _stove(folder: Path, style: Style) -> None:
    """A hot plate whose rings glow when the knob beside it is turned by more than 0.5 rad."""
    model, part = object_model("flat_stove", -0.045, 0.045, 0.045)
    steel = model.material("steel", style.rgba("stove"), specular="0.6")
    dark = model.material("dark", style.rgba("burner"))
    base = part.child("base")
    burner = base.child("burner", (0.15, 0, 0))
    burner.weight(1.4801, (0, 0, 0.0006), (4.67e-3, 4.67e-3, 8.91e-3))
    burner.site("cook_region", (0.075, 0.075, 0.0025), (0, 0, 0), rgba=(0.8, 0.8, 0, 0))
    burner.look("box", (0.095, 0.095, 0.02), steel)
    burner.solid("box", (0.095, 0.095, 0.02), name="base", contact=PLAIN)
    top = ((0.095, 0.095, 0.0005), (0, 0, 0.025))
    burner.solid("box", *top, name="collision_burner", contact=PLAIN)
    red = (0.9, 0.05, 0.05, 1)
    burner.site("burner", (0.0625, 0.0005), (0, 0, 0.022), rgba=red, kind="cylinder")
    plate = burner.child("burner_plate")
    plate.weight(0.05, (0, 0, 0.0222), (6e-5, 6e-5, 1.2e-4))
    for index, radius in enumerate((0.062, 0.046, 0.030, 0.014)):
        inner = max(0.0, radius - 0.010)
        outline = [(radius, 0.0195), (radius, 0.0250), (inner, 0.0250), (inner, 0.0195)]
        plate.mesh(model.mesh(f"ring{index}", lathe(outline)), dark)
    _knob(model, base, style)
    model.write(folder / "flat_stove.xml")


def _knob(model: Model, base: Part, style: Style) -> None:
    """A round knob with a raised grip, turning about z."""
    black = model.material("knob", style.rgba("knob"))
    knob = base.child("button", quat=turn("z", 1.5707963))
    knob.weight(3, (0, 0, 0), (1, 1, 1))
    knob.joint("button", "hinge", (0, 0, 1), (-0.005, 2.1), 1)
    prism(knob, 0.0500, 0.0062, (0.0013, 0.0044, 0.0066))
    grip: tuple[tuple[Vector, Vector], ...] = (
        ((0.0123, 0.0346, 0.0243), (0.0014, 0.0174, 0.0257)),
        ((0.0122, 0.0128, 0.0200), (0.0012, -0.0240, 0.0245)),
        ((0.0122, 0.0042, 0.0166), (0.0011, -0.0364, 0.0172)),
    )
    for size, pos in grip:
        knob.block(size, black, pos)
    disc = lathe([(0, 0), (0.0470, 0), (0.0470, 0.0128), (0, 0.0128)])
    knob.mesh(model.mesh("disc", disc), black, (0.0013, 0.0044, 0))


OVEN_WALLS: tuple[tuple[Vector, Vector, float], ...] = (
    ((0.0145, 0.09955, 0.0935), (-0.158, 0.0115, 0.0935), 0.5),
    ((0.0545, 0.09955, 0.0935), (0.118, 0.0115, 0.0935), 0.5),
    ((0.1035, 0.0150, 0.0935), (-0.0405, 0.0955, 0.0935), 0.5),
    ((0.1035, 0.0845, 0.0095), (-0.04, -0.0035, 0.1775), 0.5),
    ((0.1035, 0.0840, 0.0120), (-0.04, -0.004, 0.012), 0.5),
    ((0.0425, 0.0120, 0.0935), (0.13, -0.0985, 0.0935), 0.5),
)
# Door frame around the window: left, right, top, bottom.
DOOR_FRAME: tuple[tuple[Vector, Vector], ...] = (
    ((0.0215, 0.010, 0.0910), (0.0215, -0.0125, 0)),
    ((0.0215, 0.010, 0.0910), (0.2375, -0.0125, 0)),
    ((0.0870, 0.010, 0.0150), (0.1295, -0.0125, 0.0760)),
    ((0.0870, 0.010, 0.0150), (0.1295, -0.0125, -0.0760)),
)


def _microwave(folder: Path, style: Style) -> None:
    """A black microwave; its door turns about z, from 0 (closed) to -2.094 rad."""
    model, part = object_model("microwave", -0.06, 0.06, 0.015)
    black = model.material("black", style.rgba("oven"), specular="0.6", shininess="0.7")
    metal = model.material("metal", style.rgba("steel"), specular="0.7")
    glass = model.material("glass", style.rgba("oven_glass", 0.35))
    inside = model.material("inside", style.rgba("oven_glass"))
    part.site("top_side", (0.12, 0.0835, 0.005), (0, 0.01, 0.2), rgba=(1, 0, 0, 0))
    part.site("heating_region", (0.12, 0.0835, 0.08), (0, 0.01, 0.096), rgba=(1, 0, 0, 0))
    for size, pos, mass in OVEN_WALLS:
        part.solid("box", size, pos, mass=str(mass), contact=OVEN_CONTACT)
        part.look("box", size, black, pos)
    part.look("box", (0.1030, 0.0005, 0.0720), inside, (-0.04, 0.0799, 0.0960))
    part.look("box", (0.0290, 0.0010, 0.0120), metal, (0.1300, -0.1112, 0.0240))
    part.look("box", (0.0290, 0.0010, 0.0130), inside, (0.1300, -0.1112, 0.1550))
    door = part.child("microdoorroot", (-0.1725, -0.088, 0.096))
    door.joint("microjoint", "hinge", (0, 0, 1), (-2.094, 0), 0.5)
    for size, pos in DOOR_FRAME:
        door.look("box", size, black, pos)
    door.look("box", (0.0870, 0.0030, 0.0620), glass, (0.1295, -0.0125, 0))
    panel = ((0.1295, 0.012, 0.0925), (0.1295, -0.013, 0))
    door.solid("box", *panel, mass="0.2", contact=OVEN_CONTACT)
    across = turn("x", 1.5707963)
    handle: tuple[tuple[Vector, Vector, Vector], ...] = (
        ((0.01, 0.065), (0.2375, -0.054, 0), turn("x", 0)),
        ((0.01, 0.015), (0.2375, -0.0375, 0.065), across),
        ((0.01, 0.015), (0.2375, -0.0375, -0.065), across),
    )
    for size, pos, quat in handle:
        door.solid("capsule", size, pos, quat, mass="0.02", contact=OVEN_CONTACT)
        door.look("capsule", size, metal, pos, quat)
    model.write(folder / "microwave.xml")
