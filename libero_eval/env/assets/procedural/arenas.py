"""The five arenas (`scenes/`), the floor and wall pictures, and two small objects.

LIBERO's arena classes look up by name: texture `texplane` and `tex-wall` (whose file name they
replace by that of a style), the bodies of the tables, and in the kitchen the table's geoms.
"""

import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from libero_eval.env.assets.procedural import textures
from libero_eval.env.assets.procedural.mjcf import WHITE, Model, Part, Vector, text
from libero_eval.env.assets.procedural.quaternions import compose, turn
from libero_eval.env.assets.procedural.shapes import Mesh, lathe
from libero_eval.env.assets.procedural.style import Style

FOLDER = "scenes"
# Style files of LIBERO's arena classes that the three arenas use, or may be asked for.
SURFACES: dict[str, Callable[[Style], Image.Image]] = {
    "gray_ceramic_tile.png": lambda style: textures.tiles(style, "tiles"),
    "light-gray-floor-tile.png": lambda style: textures.tiles(style, "tiles"),
    "tile_grigia_caldera_porcelain_floor.png": lambda style: textures.tiles(style, "tiles"),
    "brown_ceramic_tile.png": lambda style: textures.tiles(style, "living_table"),
    "white_marble_floor.png": lambda style: textures.tiles(style, "shelf", 1),
    "dark_floor_texture.png": lambda style: textures.planks(style, "living_table"),
    "rustic_floor.png": lambda style: textures.planks(style, "study_table"),
    "seamless_wood_planks_floor.png": lambda style: textures.planks(style, "planks"),
    "yellow_linen_wall_texture.png": lambda style: textures.plaster(style, "linen"),
    "light-gray-plaster.png": lambda style: textures.plaster(style, "plaster"),
    "gray_plaster.png": lambda style: textures.plaster(style, "plaster"),
    "dark_gray_plaster.png": lambda style: textures.plaster(style, "handle"),
    "smooth_light_gray_plaster.png": lambda style: textures.plaster(style, "plaster"),
    "white_wall.png": lambda style: textures.plaster(style, "plate"),
    "ceramic.png": lambda style: textures.plaster(style, "plate"),
    "light_blue_wall.png": lambda style: textures.plaster(style, "cheese"),
    "dark_blue_wall.png": lambda style: textures.plaster(style, "soup"),
    "dark_green_plaster_wall.png": lambda style: textures.plaster(style, "leaves"),
    "kitchen_table.png": lambda style: textures.wood(style, "kitchen_table", 12),
    "living_table.png": lambda style: textures.wood(style, "living_table", 32),
    "study_table.png": lambda style: textures.wood(style, "study_table", 24),
    "table_top.png": lambda style: textures.wood(style, "table_top", 20),
}
CAMERAS: tuple[tuple[str, Vector, Vector], ...] = (
    ("frontview", (1.0, 0, 1.45), (0.56, 0.43, 0.43, 0.56)),
    ("birdview", (-0.2, 0, 3.0), (0.7071, 0, 0, 0.7071)),
    ("agentview", (0.5, 0, 1.35), (0.653, 0.271, 0.271, 0.653)),
    ("sideview", (-0.0565, 1.2761, 1.4880), (0.0099, 0.0069, 0.5912, 0.8064)),
)
# Walls are thin along their own z, the only direction in which MuJoCo projects a 2d texture.
WALLS: tuple[tuple[str, Vector, Vector], ...] = (
    ("left", (0, 3, 1.5), (0.7071068, 0.7071068, 0, 0)),
    ("right", (0, -3, 1.5), (0.7071068, -0.7071068, 0, 0)),
    ("rear", (-2, 0, 1.5), (0.5, 0.5, 0.5, 0.5)),
    ("front", (3, 0, 1.5), (0.5, 0.5, -0.5, -0.5)),
)


def write_arenas(folder: Path, style: Style) -> None:
    """Write the arenas, their pictures and the two objects at the top of LIBERO's folder."""
    for name, picture in SURFACES.items():
        textures.save(folder / "textures" / name, picture(style))
    _kitchen(folder / FOLDER, style)
    _living_room(folder / FOLDER, style)
    _study(folder / FOLDER, style)
    _tabletop(folder / FOLDER)
    _floor(folder / FOLDER)
    _small_boxes(folder)


def _room(name: str, table: str, floor_body: bool = False) -> tuple[Model, Part]:
    """A room of 6 x 6 m with a floor, four walls, two lights and the cameras."""
    model = Model(name)
    sky = {"type": "skybox", "builtin": "gradient", "rgb1": ".9 .9 1", "rgb2": ".2 .3 .4"}
    ET.SubElement(model.asset, "texture", {**sky, "width": "64", "height": "64"})
    model.texture("texplane", "../textures/tile_grigia_caldera_porcelain_floor.png")
    model.texture("tex-wall", "../textures/smooth_light_gray_plaster.png")
    model.texture("tex-table", f"../textures/{table}", kind="cube")
    tiled = {"texrepeat": "3 3", "texuniform": "true", "shininess": "0"}
    floor = model.material("floorplane", WHITE, texture="texplane", specular="0", **tiled)
    wall = model.material("walls_mat", WHITE, texture="tex-wall", **tiled)
    model.material("table_texture", texture="tex-table", specular="0.2")
    world = Part(body=model.world)
    ground = world.child("floor") if floor_body else world
    plane = {"name": "floor", "type": "plane", "pos": "0 0 0", "size": "3 3 .125"}
    plane |= {"material": floor, "condim": "3", "group": "1"}
    ET.SubElement(ground.body, "geom", plane)
    for side, pos, quat in WALLS:
        world.look("box", (3, 1.5, 0.01), wall, pos, quat, name=f"wall_{side}_visual")
    for index, pos in enumerate(("1 1 4", "-3 -3 4"), start=1):
        light = {"name": f"light{index}", "pos": pos, "dir": "0 -.15 -1", "castshadow": "false"}
        light |= {"diffuse": ".8 .8 .8", "specular": ".3 .3 .3", "directional": "false"}
        ET.SubElement(model.world, "light", light)
    for camera, pos, quat in CAMERAS:
        place = {"name": camera, "mode": "fixed", "pos": text(pos), "quat": text(quat)}
        ET.SubElement(model.world, "camera", place)
    return model, world


def _kitchen(folder: Path, style: Style) -> None:
    """A kitchen: worktop, cupboard, hood and fridge at the rear wall, a wooden table on legs."""
    model, world = _room("table_arena", "kitchen_table.png")
    dark = model.material("worktop", style.rgba("worktop"), specular="0.2")
    metal = model.material("fridge", style.rgba("handle"), specular="0.5")
    model.material("table_legs", texture="tex-table")
    front = model.material("cupboard", style.rgba("cupboard"))
    world.look("box", (0.31, 1.30, 0.43), front, (-1.67, 0.35, 0.43))
    world.look("box", (0.33, 1.32, 0.02), dark, (-1.66, 0.35, 0.88))
    for y in (-0.5, 0.05, 0.6, 1.15):
        world.look("box", (0.005, 0.005, 0.40), dark, (-1.36, y, 0.43))
    world.look("box", (0.22, 0.44, 0.89), metal, (-1.75, -1.45, 0.89))
    light = {"name": "light_kitchen", "pos": "-1.75 0 1.6", "dir": "0 0 -1", "castshadow": "false"}
    light |= {"diffuse": ".8 .8 .8", "specular": ".8 .8 .8", "directional": "true"}
    ET.SubElement(model.world, "light", light)
    _square_table(world)
    model.write(folder / "libero_kitchen_tabletop_base_style.xml")


def _tabletop(folder: Path) -> None:
    """A bare room with a wooden table: LIBERO-Spatial and LIBERO-Goal."""
    model, world = _room("table_arena", "table_top.png")
    model.material("table_legs", texture="tex-table")
    _square_table(world)
    model.write(folder / "libero_tabletop_base_style.xml")


def _floor(folder: Path) -> None:
    """A bare room without a table: LIBERO-Object."""
    model, _ = _room("table_arena", "table_top.png", floor_body=True)
    model.write(folder / "libero_floor_base_style.xml")


def _square_table(world: Part) -> None:
    """The table whose size and legs LIBERO's arena class sets."""
    table = world.child("table", (0, 0, 0.4))
    collision = {"name": "table_collision", "type": "box", "pos": "0 0 0", "size": "0.4 0.4 0.4"}
    ET.SubElement(table.body, "geom", collision | {"group": "0", "friction": "1 0.005 0.0001"})
    table.look("box", (0.4, 0.4, 0.4), "table_texture", name="table_visual")
    table.site("table_top", (0.001,) * 3, (0, 0, 0.4), rgba=(0, 0, 0, 0), kind="sphere")
    for index in range(1, 5):
        table.look("cylinder", (0.05, 0.1), "table_legs", name=f"table_leg{index}_visual")


# The low table, in its own frame (x of the room is -y here): half sizes and places.
LIVING_TABLE: tuple[tuple[Vector, Vector], ...] = (
    ((0.6717, 0.4443, 0.0118), (-0.1976, 0, 0.4249)),
    ((0.1013, 0.4168, 0.0118), (0.5494, 0, 0.4249)),
    ((0.1013, 0.4168, 0.0118), (-0.9701, 0, 0.4249)),
    ((0.6717, 0.0775, 0.0118), (-0.1976, -0.5112, 0.4249)),
    ((0.6717, 0.0775, 0.0118), (-0.1976, 0.4967, 0.4249)),
    ((0.4352, 0.4116, 0.2088), (0, 0, 0.2041)),
)


def _living_room(folder: Path, style: Style) -> None:
    """A living room: a low dark table with round corners, a picture and a wall unit."""
    model, world = _room("living_room_arena", "living_table.png", floor_body=True)
    table = world.child("living_room_table")
    turned = table.child("living_room_table_col", (-0.25, 0.25, 0), (0.707, 0, 0, 0.707))
    for size, pos in LIVING_TABLE:
        turned.solid("box", size, pos)
    model.texture("tex-top", "../textures/living_table.png")
    wood = model.material("top", texture="tex-top", specular="0.2")
    turned.mesh(model.mesh("top", _table_top((0.90, 0.60), (-0.21, -0.011))), wood)
    turned.look("box", LIVING_TABLE[-1][0], "table_texture", LIVING_TABLE[-1][1])
    frame = model.material("frame", style.rgba("worktop"))
    world.look("box", (0.02, 0.43, 0.50), frame, (-1.95, 0.60, 1.5))
    model.write(folder / "libero_living_room_tabletop_base_style.xml")


def _table_top(half: tuple[float, float], center: tuple[float, float]) -> Mesh:
    """A plate with well rounded corners (a superellipse), its texture seen from above."""
    disc = lathe([(0, 0.410), (1, 0.410), (1, 0.4367), (0, 0.4367)], segments=32)
    x, y, z = disc.vertices.T
    stretch = (x**4 + y**4 + 1e-12) ** -0.25 * (x**2 + y**2 > 0.25)
    x, y = x * stretch * half[0] + center[0], y * stretch * half[1] + center[1]
    return Mesh(
        vertices=np.stack([x, y, z], axis=1),
        faces=disc.faces,
        coordinates=np.stack([x, y], axis=1),
    )


# The desk: top, four legs, two feet.
STUDY_TABLE: tuple[tuple[Vector, Vector], ...] = (
    ((0.68946, 1.39273, 0.03584), (0, 0, 0.84929)),
    ((0.02002, 0.05031, 0.39407), (-0.50048, -0.69064, 0.39431)),
    ((0.02002, 0.05031, 0.39407), (0.49617, -0.69064, 0.39431)),
    ((0.02002, 0.05031, 0.39407), (0.49617, 0.70968, 0.39431)),
    ((0.02002, 0.05031, 0.39407), (-0.50048, 0.71473, 0.39431)),
    ((0.51262, 0.05031, 0.02002), (-0.00488, 0.71473, 0.02528)),
    ((0.51262, 0.05031, 0.02002), (-0.00488, -0.69765, 0.02528)),
)


def _study(folder: Path, style: Style) -> None:
    """A study: a large desk, a shelf, a plant in a pot, a picture."""
    model, world = _room("table_arena", "study_table.png")
    table = world.child("study_table")
    for size, pos in STUDY_TABLE:
        table.solid("box", size, pos)
        table.look("box", size, "table_texture", pos)
    gray = model.material("shelf", style.rgba("shelf"))
    green = model.material("leaves", style.rgba("leaves"))
    book = model.material("books", style.rgba("book"))
    for y in (-1.60, -0.40):
        world.look("box", (0.15, 0.012, 0.90), gray, (-1.72, y, 0.90))
    for z in (0.02, 0.45, 0.89, 1.33, 1.78):
        world.look("box", (0.15, 0.60, 0.012), gray, (-1.72, -1.0, z))
    world.look("box", (0.005, 0.60, 0.90), gray, (-1.86, -1.0, 0.90))
    for y in (-0.50, -0.45):
        world.look("box", (0.10, 0.022, 0.12), book, (-1.71, y, 1.02))
    pot = lathe([(0, 0), (0.15, 0), (0.20, 0.32), (0, 0.32)], segments=16)
    world.mesh(model.mesh("pot", pot), gray, (-1.84, 0.51, 0))
    leaf = lathe([(0, 0), (0.045, 0.45), (0, 0.95)], segments=4)
    leaf.vertices[:, 0] *= 0.3
    model.mesh("leaf", leaf)
    for index in range(7):
        lean = _leaf_turn(index)
        world.mesh("leaf", green, (-1.84, 0.51, 0.30), lean)
    model.write(folder / "libero_study_base_style.xml")


def _leaf_turn(index: int) -> Vector:
    """Leaves spread around the pot, leaning out by 0.15 to 0.6 rad."""
    return compose(turn("z", 0.9 * index), turn("y", 0.15 + 0.075 * index))


def _small_boxes(folder: Path) -> None:
    """`wall.xml` and `serving_region.xml`, which LIBERO keeps at the top of its assets."""
    for name, place in {"wall": "geom", "serving_region": "site"}.items():
        model = Model(name)
        outer = Part(body=ET.SubElement(model.world, "body"))
        base = outer.child("object").child("base")
        if place == "geom":
            blue = model.material("blue", (0, 0, 1, 1))
            base.solid("box", (0.15, 0.01, 0.08), (0, 0, 0.022), name="obstacle")
            base.look("box", (0.15, 0.01, 0.08), blue, (0, 0, 0.022), name="visual_obj")
        else:
            base.site("plate", (1, 1, 0.05), (0, 0, 0.022), rgba=(1, 0, 0, 1))
        sites = {"bottom_site": (0, 0, -0.3), "top_site": (0, 0, 0.3)}
        for site, pos in {**sites, "horizontal_radius_site": (0.3, 0, 0)}.items():
            outer.site(site, (0.005,), pos, rgba=(0, 0, 0, 0), kind="sphere")
        model.write(folder / f"{name}.xml")
