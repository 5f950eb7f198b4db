"""Basket, plate, frying pan, bowl (`stable_scanned_objects/`), moka pot and bottle.

Collision boxes have the places, sizes and leans of LIBERO's objects, in round numbers.
"""

from pathlib import Path

import numpy as np

from libero_eval.env.assets.procedural import textures
from libero_eval.env.assets.procedural.mjcf import object_model, prism, ring
from libero_eval.env.assets.procedural.quaternions import turn
from libero_eval.env.assets.procedural.shapes import lathe
from libero_eval.env.assets.procedural.style import Style

SCANNED = "stable_scanned_objects"
TURBOSQUID = "turbosquid_objects"


def write_dishes(folder: Path, style: Style) -> None:
    """Write the objects below `folder`."""
    _basket(folder / SCANNED / "basket", style)
    _plate(folder / SCANNED / "plate", style)
    _pan(folder / SCANNED / "chefmate_8_frypan", style)
    _bowl(folder / SCANNED / "akita_black_bowl", style)
    _ramekin(folder / SCANNED / "glazed_rim_porcelain_ramekin", style)
    _white_bowl(folder / SCANNED / "white_bowl", style)
    _moka_pot(folder / TURBOSQUID / "moka_pot", style)
    _bottle(folder / TURBOSQUID / "wine_bottle", style)


def _basket(folder: Path, style: Style) -> None:
    """An open box of boards, 170 x 157 x 142 mm, walls leaning outward a little."""
    model, part = object_model("basket")
    part.weight(0.1361, (0.0013, 0.0001, 0.0609), (6.39e-4, 6.84e-4, 8.17e-4))
    textures.save(folder / "texture.png", textures.wood(style, "basket", grain=12))
    model.texture("tex-basket", "texture.png", kind="cube")
    board = model.material("basket", texture="tex-basket")
    part.block((0.0766, 0.0724, 0.0085), board, (0.0025, 0, 0.0131))
    for sign in (-1, 1):
        lean = turn("y", sign * 0.075)
        part.block((0.0067, 0.0724, 0.0637), board, (0.0003 + 0.0734 * sign, 0, 0.0768), lean)
        lean = turn("x", -sign * 0.05)
        part.block((0.0724, 0.0067, 0.0637), board, (0.0002, 0.0689 * sign, 0.0818), lean)
    part.site("contain_region", (0.06108, 0.06108, 0.06949), (0, 0, 0.07185), quat=(0, 0, 0, 1))
    model.write(folder / "basket.xml")


def _plate(folder: Path, style: Style) -> None:
    """A plate of 137 mm with a rising rim; its ring of boxes dips 2.5 mm below the floor."""
    model, part = object_model("plate")
    part.weight(0.0115, (0, 0, 0.0064), (1.4e-5, 1.4e-5, 2.76e-5))
    part.solid("box", (0.0286, 0.0306, 0.0022), (0, 0, 0.0031))
    rim = (0.0025, 0.0285, 0.0191)
    ring(part, rim, 0.0483, (0, 0, 0.007), lean=np.pi / 2 - 0.336, count=8)
    china = model.material("china", style.rgba("plate"), specular="0.5")
    outline = [(0, -0.0022), (0.040, -0.0022), (0.0675, 0.0125), (0.0686, 0.0155)]
    inside = [(0.0665, 0.0155), (0.058, 0.0102), (0.040, 0.0050), (0, 0.0050)]
    part.mesh(model.mesh("model", lathe([*outline, *inside])), china)
    model.write(folder / "plate.xml")


def _pan(folder: Path, style: Style) -> None:
    """A frying pan of 20 cm, its handle along +x."""
    model, part = object_model("chefmate_8_frypan")
    part.weight(0.0502, (0.0238, -0.0009, 0.0168), (1.23e-4, 2.91e-4, 3.96e-4))
    center = (0.004, -0.0006, 0.0072)
    prism(part, 0.078, 0.0055, center)
    wall = (0.0036, 0.0209, 0.0213)
    ring(part, wall, 0.0885, (0.004, -0.0006, 0.0223), lean=0.547, count=16)
    part.solid("box", (0.0123, 0.0105, 0.0104), (0.1126, 0, 0.0199), turn("y", -0.21))
    part.solid("box", (0.0060, 0.0104, 0.0108), (0.1295, 0, 0.0275), turn("y", 0.53))
    part.solid("box", (0.0665, 0.0127, 0.0062), (0.1926, 0, 0.0441), turn("y", -0.13))
    iron = model.material("iron", style.rgba("pan"), specular="0.6")
    rim = model.material("rim", style.rgba("pan_rim"), specular="0.6")
    outline = [(0, 0.0012), (0.076, 0.0012), (0.097, 0.0415), (0.099, 0.0425)]
    inside = [(0.095, 0.0425), (0.076, 0.0105)]
    part.mesh(model.mesh("wall", lathe([*outline, *inside])), rim, (0.004, 0, 0))
    bed = lathe([(0.0765, 0.0105), (0.0, 0.0105)])
    part.mesh(model.mesh("bed", bed), iron, (0.004, 0, 0))
    part.look("box", (0.030, 0.0085, 0.0050), rim, (0.118, 0, 0.0305), turn("y", -0.25))
    part.look("box", (0.0620, 0.0125, 0.0068), iron, (0.196, 0, 0.0445), turn("y", -0.13))
    model.write(folder / "chefmate_8_frypan.xml")


def _bowl(folder: Path, style: Style) -> None:
    """A black bowl, 107 mm across and 51 mm high."""
    model, part = object_model("akita_black_bowl")
    part.weight(0.0056, (0.0005, 0.0005, 0.0227), (5.9e-6, 5.9e-6, 9.08e-6))
    prism(part, 0.0245, 0.0026, (0, 0, 0.0042))
    ring(part, (0.0009, 0.0105, 0.0119), 0.0336, (0, 0, 0.0098), lean=1.05, count=12)
    ring(part, (0.0013, 0.0135, 0.0187), 0.0471, (0, 0, 0.0337), lean=0.253, count=12)
    glaze = model.material("glaze", style.rgba("bowl"), specular="0.7")
    outline = [(0, 0.0016), (0.024, 0.0016), (0.043, 0.0155), (0.0520, 0.0490), (0.0535, 0.0521)]
    inside = [(0.0505, 0.0521), (0.0490, 0.0480), (0.0405, 0.0180), (0.024, 0.0068), (0, 0.0068)]
    part.mesh(model.mesh("bowl", lathe([*outline, *inside])), glaze)
    model.write(folder / "akita_black_bowl.xml")


def _ramekin(folder: Path, style: Style) -> None:
    """A small porcelain dish with a steep wall, 82 mm across and 42 mm high."""
    model, part = object_model("glazed_rim_porcelain_ramekin")
    part.weight(0.0097, (0, 0, 0.0168), (7.7e-6, 7.7e-6, 1.22e-5))
    prism(part, 0.0340, 0.0032, (0, 0, 0.0041))
    ring(part, (0.0026, 0.0095, 0.0209), 0.0382, (0, 0, 0.0217), lean=0.149, count=16)
    glaze = model.material("glaze", style.rgba("ramekin"), specular="0.6")
    outline = [(0, 0.0009), (0.0340, 0.0009), (0.0362, 0.0040), (0.0430, 0.0424)]
    inside = [(0.0385, 0.0424), (0.0335, 0.0073), (0, 0.0073)]
    part.mesh(model.mesh("dish", lathe([*outline, *inside])), glaze)
    model.write(folder / "glazed_rim_porcelain_ramekin.xml")


def _white_bowl(folder: Path, style: Style) -> None:
    """A small white bowl, 79 mm across and 35 mm high."""
    model, part = object_model("white_bowl")
    part.weight(0.0021, (0, 0, 0.0156), (1.2e-6, 1.2e-6, 1.97e-6))
    part.solid("box", (0.0173, 0.0165, 0.0018), (0, 0, 0.0024))
    ring(part, (0.0005, 0.0071, 0.0085), 0.0239, (0, 0, 0.0070), lean=1.047, count=15)
    ring(part, (0.0010, 0.0071, 0.0127), 0.0357, (0, 0, 0.0226), lean=0.288, count=18)
    glaze = model.material("glaze", style.rgba("white_bowl"), specular="0.6")
    outline = [(0, 0.0006), (0.0170, 0.0006), (0.0315, 0.0108), (0.0395, 0.0350)]
    inside = [(0.0372, 0.0350), (0.0300, 0.0125), (0.0165, 0.0042), (0, 0.0042)]
    part.mesh(model.mesh("bowl", lathe([*outline, *inside])), glaze)
    model.write(folder / "white_bowl.xml")


def _moka_pot(folder: Path, style: Style) -> None:
    """An eight-sided coffee pot, 137 mm high; handle at +y, spout at -y."""
    model, part = object_model("moka_pot")
    part.weight(0.0682, (0, 0.0017, 0.0043), (1.43e-4, 1.28e-4, 6.23e-5))
    part.solid("box", (0.0250, 0.0329, 0.0665), (0, 0.0019, 0.0004))
    for angle in (0.391, -0.435):
        part.solid("box", (0.0367, 0.0172, 0.0665), (0.0003, 0, 0.0004), turn("z", angle))
    part.solid("box", (0.0176, 0.0058, 0.0245), (0, -0.0359, 0.0426))
    part.solid("box", (0.0080, 0.0072, 0.0137), (0, -0.0491, 0.0462))
    part.solid("box", (0.0102, 0.0072, 0.0137), (0, 0.0416, 0.0525))
    steel = model.material("steel", style.rgba("steel"), specular="0.8", shininess="0.6")
    rubber = model.material("rubber", style.rgba("rubber"))
    lower = [(0, -0.0661), (0.0385, -0.0661), (0.0385, -0.0610), (0.0315, -0.008), (0.035, -0.006)]
    upper = [(0.0350, 0.0030), (0.0285, 0.0060), (0.0385, 0.0600), (0.0250, 0.0670), (0, 0.0690)]
    body = lathe([*lower, *upper], segments=8)
    part.mesh(model.mesh("body", body), steel)
    part.look("box", (0.0095, 0.0150, 0.0110), steel, (0, -0.042, 0.047), turn("x", 0.5))
    part.solid("box", (0.0052, 0.0060, 0.0114), (0, -0.0013, 0.0743))
    part.look("box", (0.0060, 0.0060, 0.0100), rubber, (0, -0.0013, 0.0760))
    handle = [
        ((0.0066, 0.0141, 0.0070), (0, 0.0563, 0.0603), 0.0),
        ((0.0066, 0.0141, 0.0070), (0, 0.0755, 0.0539), -0.71),
        ((0.0066, 0.0071, 0.0275), (0, 0.0725, 0.0282), -0.466),
        ((0.0066, 0.0071, 0.0101), (0, 0.0576, 0.0023), -0.79),
    ]
    for size, pos, angle in handle:
        part.solid("box", size, pos, turn("x", angle))
        part.look("box", size, rubber, pos, turn("x", angle))
    model.write(folder / "moka_pot.xml")


def _bottle(folder: Path, style: Style) -> None:
    """A dark wine bottle, 157 mm high, with a pale label."""
    model, part = object_model("wine_bottle")
    part.weight(0.0154, (0, 0, 0.0561), (2.29e-5, 2.29e-5, 2.54e-6))
    prism(part, 0.0215, 0.0310, (0, 0, 0.0321))
    prism(part, 0.0170, 0.0060, (0, 0, 0.0690))
    prism(part, 0.0125, 0.0070, (0, 0, 0.0811))
    prism(part, 0.0076, 0.0350, (0, 0, 0.1230))
    glass = model.material("glass", style.rgba("bottle"), specular="0.9", shininess="0.8")
    paper = model.material("paper", style.rgba("bottle_label"))
    cork = model.material("cork", style.rgba("cork"))
    outline = [(0, 0.0011), (0.0212, 0.0011), (0.0216, 0.062), (0.0135, 0.083), (0.0078, 0.097)]
    body = lathe([*outline, (0.0072, 0.140), (0.0082, 0.142), (0.0082, 0.147), (0, 0.147)])
    part.mesh(model.mesh("body", body), glass)
    band = lathe([(0.0217, 0.018), (0.0219, 0.050)])
    part.mesh(model.mesh("band", band), paper)
    stopper = lathe([(0.0072, 0.147), (0.0072, 0.158), (0, 0.158)], segments=12)
    part.mesh(model.mesh("stopper", stopper), cork)
    model.write(folder / "wine_bottle.xml")
