"""Books, desk caddy, wine rack, tray and shelf (`turbosquid_objects/`)."""

from pathlib import Path

import numpy as np

from libero_eval.env.assets.procedural import textures
from libero_eval.env.assets.procedural.mjcf import Model, Part, Vector, object_model
from libero_eval.env.assets.procedural.quaternions import turn
from libero_eval.env.assets.procedural.style import Style

FOLDER = "turbosquid_objects"


def write_furniture(folder: Path, style: Style) -> None:
    """Write the objects below `folder`."""
    root = folder / FOLDER
    inertia = (1.07e-4, 6.7e-5, 4.61e-5)
    black = ((0.0143, 0.0552, 0.0672), (-0.0005, -0.0122, 0.0694), 0.0425, inertia)
    _book(root, style, "black_book", "book", *black)
    inertia = (5.74e-5, 3.63e-5, 2.37e-5)
    yellow = ((0.0118, 0.0489, 0.0611), (0.0016, 0.0001, 0.0631), 0.0281, inertia)
    _book(root, style, "yellow_book", "yellow_book", *yellow)
    _caddy(root / "desk_caddy", style)
    _rack(root / "wine_rack", style)
    _tray(root / "wooden_tray", style)
    _shelf(root / "wooden_two_layer_shelf", style)


def _book(
    root: Path, style: Style, name: str, color: str, half: Vector, center: Vector, mass: float,
    inertia: Vector,
) -> None:  # fmt: skip
    """A book standing on its lower edge, its back at -y."""
    model, part = object_model(name)
    part.weight(mass, center, inertia)
    part.solid("box", half, center)
    cover = model.material("cover", style.rgba(color))
    paper = model.material("paper", style.rgba("paper"))
    x, y, z = half
    board = 0.0016
    for sign in (-1, 1):
        place = np.add(center, ((x - board) * sign, 0, 0))
        part.look("box", (board, y, z), cover, place)
    part.look("box", (x, board, z), cover, np.add(center, (0, board - y, 0)))
    part.look("box", (x - 0.0031, y - 0.0042, z - 0.0032), paper, center)
    model.write(root / name / f"{name}.xml")


# Half sizes and places of the caddy's boards: floor, four walls, the divider, a taller front.
CADDY_BOARDS: tuple[tuple[Vector, Vector], ...] = (
    ((0.0755, 0.2169, 0.0062), (0, 0, 0.0076)),
    ((0.0706, 0.0062, 0.0824), (0, -0.0680, 0.0850)),
    ((0.0706, 0.0062, 0.0824), (0, -0.2094, 0.0850)),
    ((0.0040, 0.2098, 0.0815), (0.0668, 0, 0.0868)),
    ((0.0040, 0.0668, 0.0434), (-0.0016, 0, 0.0552)),
    ((0.0040, 0.2098, 0.0345), (-0.0669, 0, 0.0395)),
    ((0.0040, 0.0766, 0.0796), (-0.0669, -0.1398, 0.0877)),
)
CADDY_SITES: tuple[tuple[str, Vector, Vector, Vector], ...] = (
    ("right_contain_region", (0.062, 0.0622, 0.0605), (0.0063, -0.1434, 0.0656), (0, 0, 1, 0)),
    ("left_contain_region", (0.062, 0.0622, 0.0605), (0.0063, 0.1455, 0.0656), (0, 0, 1, 0)),
    ("back_contain_region", (0.0278, 0.0622, 0.0605), (0.0336, -0.0006, 0.0856), (0, 0, 1, 0)),
    (
        "front_contain_region",
        (0.0278, 0.0360, 0.0622),
        (-0.0310, -0.0006, 0.0405),
        (0, 0, 0.7071068, -0.7071068),
    ),
)


def _caddy(folder: Path, style: Style) -> None:
    """A wooden tray of four compartments, 151 x 434 x 168 mm."""
    model, part = object_model("desk_caddy")
    part.weight(0.2780, (0.0041, -0.023, 0.0567), (5.55e-3, 1.41e-3, 5.61e-3))
    textures.save(folder / "desk_caddy_texture.png", textures.wood(style, "caddy", grain=20))
    model.texture("tex-desk_caddy", "desk_caddy_texture.png", kind="cube")
    board = model.material("desk_caddy", texture="tex-desk_caddy")
    for size, pos in CADDY_BOARDS:
        part.block(size, board, pos)
    for y in (0.0706, 0.2084):
        _sloping_side(part, board, y)
    for name, size, pos, quat in CADDY_SITES:
        part.site(name, size, pos, quat=quat)
    model.write(folder / "desk_caddy.xml")


def _sloping_side(part: Part, board: str, y: float) -> None:
    """A side board that is low at the front (-x) and high at the back."""
    slope = turn("y", -0.61)
    part.block((0.0706, 0.0036, 0.0333), board, (0, y, 0.0452))
    part.block((0.0299, 0.0036, 0.0368), board, (0.0345, y, 0.0748))
    part.block((0.0114, 0.0036, 0.0188), board, (0.0549, y, 0.1236))
    part.block((0.0706, 0.0036, 0.0209), board, (0, y, 0.0945), slope)
    part.block((0.0279, 0.0036, 0.0114), board, (0.0421, y, 0.1387), slope)


def _rack(folder: Path, style: Style) -> None:
    """Two sloping boards with an edge each, on a stand, 330 mm high."""
    model, part = object_model("wine_rack")
    part.weight(0.1527, (0, -0.0122, 0.1111), (2.06e-3, 2.21e-3, 1.09e-3))
    textures.save(folder / "light-wood.png", textures.wood(style, "rack_board", grain=24))
    model.texture("tex-board", "light-wood.png", kind="cube")
    board = model.material("board", texture="tex-board")
    stand = model.material("stand", style.rgba("rack_stand"))
    slope = turn("x", 0.545)
    for y, z in ((-0.0061, 0.2512), (-0.0427, 0.1273)):
        part.block((0.1344, 0.0789, 0.0045), board, (0, y, z), slope)
    for y, z in ((-0.0748, 0.2207), (-0.1091, 0.0974)):
        part.block((0.1322, 0.0011, 0.0087), stand, (0, y, z), slope)
    part.block((0.0665, 0.0930, 0.0045), stand, (0, 0, 0.0066))
    part.block((0.0900, 0.0600, 0.0045), stand, (0, 0.0694, 0.0101), turn("x", -0.13))
    part.block((0.0900, 0.0600, 0.0045), stand, (0, -0.0643, 0.0126), turn("x", 0.14))
    part.block((0.0905, 0.0141, 0.0045), stand, (0, 0, 0.0205))
    part.block((0.0076, 0.0091, 0.1616), stand, (0, 0.0089, 0.1703), turn("x", -0.275))
    part.site("top_region", (0.1009, 0.022, 0.0025), (0, -0.08, 0.2174), quat=(0.855, -0.519, 0, 0))
    model.write(folder / "wine_rack.xml")


# Half sizes and places of the tray's boards: ends, sides, floor, corner posts, grips.
TRAY_BOARDS: tuple[tuple[Vector, Vector], ...] = (
    ((0.0023, 0.0778, 0.0246), (-0.1392, -0.0055, 0.0299)),
    ((0.0023, 0.0778, 0.0246), (0.1532, -0.0055, 0.0299)),
    ((0.1440, 0.0023, 0.0294), (0.0078, -0.0845, 0.0332)),
    ((0.1440, 0.0023, 0.0284), (0.0078, 0.0758, 0.0312)),
    ((0.1440, 0.0795, 0.0036), (0.0078, -0.0052, 0.0035)),
    ((0.0062, 0.0055, 0.0392), (-0.1321, 0.0681, 0.0408)),
    ((0.0062, 0.0055, 0.0392), (-0.1321, -0.0785, 0.0408)),
    ((0.0062, 0.0055, 0.0392), (0.1453, -0.0785, 0.0408)),
    ((0.0062, 0.0055, 0.0392), (0.1453, 0.0689, 0.0408)),
    ((0.0067, 0.0786, 0.0012), (-0.1335, -0.0049, 0.0797)),
    ((0.0067, 0.0786, 0.0012), (0.1471, -0.0049, 0.0797)),
)
LYING = (0.70711, 0, 0.70711, 0)


def _tray(folder: Path, style: Style) -> None:
    """An open wooden tray with grips at both ends, 297 x 168 x 81 mm."""
    model, part = object_model("wooden_tray")
    part.weight(0.0572, (0.0076, -0.0054, 0.0187), (2.32e-4, 6.07e-4, 7.9e-4))
    board = _wood(folder, style, model, "tray")
    for size, pos in TRAY_BOARDS:
        part.block(size, board, pos)
    size, pos = (0.04038, 0.07839, 0.13549), (0.00863, -0.00471, 0.04255)
    part.site("contain_region", size, pos, quat=LYING)
    model.write(folder / "wooden_tray.xml")


# Half sizes and places of the shelf's boards: sides, back, the board between, the top.
SHELF_BOARDS: tuple[tuple[Vector, Vector], ...] = (
    ((0.0071, 0.0954, 0.1044), (-0.1538, 0.0163, 0.1046)),
    ((0.0071, 0.0954, 0.1044), (0.1631, 0.0163, 0.1046)),
    ((0.1633, 0.0023, 0.1044), (0.0029, 0.1094, 0.1046)),
    ((0.1532, 0.0893, 0.0008), (0.0052, 0.0187, 0.0701)),
    ((0.1756, 0.0951, 0.0021), (0.0050, 0.0163, 0.2082)),
)


def _shelf(folder: Path, style: Style) -> None:
    """Two open compartments one above the other, 351 x 190 x 210 mm."""
    model, part = object_model("wooden_two_layer_shelf")
    part.weight(0.2063, (0.0046, 0.0416, 0.1172), (1.7e-3, 4.6e-3, 4.44e-3))
    board = _wood(folder, style, model, "dark_wood")
    for size, pos in SHELF_BOARDS:
        part.block(size, board, pos)
    part.site("top_side", (0.17557, 0.09438, 0.00147), (0.00496, 0.01567, 0.20688))
    top = ((0.06737, 0.08562, 0.15093), (0.00538, 0.01687, 0.13672))
    part.site("top_region", *top, quat=(0.70711, 0, -0.70711, 0))
    bottom = ((0.0353, 0.0856, 0.1558), (0.0056, 0.0169, 0.0141))
    part.site("bottom_region", *bottom, quat=LYING)
    model.write(folder / "wooden_two_layer_shelf.xml")


def _wood(folder: Path, style: Style, model: Model, color: str) -> str:
    """A wooden surface drawn beside the file; its material."""
    textures.save(folder / "wood.png", textures.wood(style, color, grain=20))
    model.texture("tex-wood", "wood.png", kind="cube")
    return model.material("wood", texture="tex-wood")
