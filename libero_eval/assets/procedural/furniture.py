"""Book, desk caddy and wine rack (`turbosquid_objects/`)."""

from pathlib import Path

import numpy as np

from libero_eval.assets.procedural import textures
from libero_eval.assets.procedural.mjcf import Part, Vector, object_model
from libero_eval.assets.procedural.quaternions import turn
from libero_eval.assets.procedural.style import Style

FOLDER = "turbosquid_objects"


def write_furniture(folder: Path, style: Style) -> None:
    """Write the three objects below `folder`."""
    _book(folder / FOLDER / "black_book", style)
    _caddy(folder / FOLDER / "desk_caddy", style)
    _rack(folder / FOLDER / "wine_rack", style)


def _book(folder: Path, style: Style) -> None:
    """A book standing on its lower edge, 29 x 110 x 134 mm, its back at -y."""
    model, part = object_model("black_book")
    part.weight(0.0425, (-0.0005, -0.0122, 0.0694), (1.07e-4, 6.7e-5, 4.61e-5))
    centre = np.array((-0.0005, -0.0122, 0.0694))
    part.solid("box", (0.0143, 0.0552, 0.0672), centre)
    cover = model.material("cover", style.rgba("book"))
    paper = model.material("paper", style.rgba("paper"))
    for sign in (-1, 1):
        part.look("box", (0.0016, 0.0552, 0.0672), cover, centre + np.array((0.0127 * sign, 0, 0)))
    part.look("box", (0.0143, 0.0016, 0.0672), cover, centre - np.array((0, 0.0536, 0)))
    part.look("box", (0.0112, 0.0510, 0.0640), paper, centre)
    model.write(folder / "black_book.xml")


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
