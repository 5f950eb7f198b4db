"""Packets, tins and bottles (`stable_hope_objects/`).

Sizes, masses and inertias are those of LIBERO's objects (collision geometry only, as robosuite
weighs them). Most of these stand with their y axis up: `UPRIGHT` lets us describe them with z up.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from libero_eval.env.assets.procedural import textures
from libero_eval.env.assets.procedural.mjcf import Model, Part, Vector, object_model, prism
from libero_eval.env.assets.procedural.quaternions import turn
from libero_eval.env.assets.procedural.shapes import Mesh, carton, lathe
from libero_eval.env.assets.procedural.style import Style

FOLDER = "stable_hope_objects"
UPRIGHT = turn("x", -np.pi / 2)


@dataclass(frozen=True, kw_only=True)
class Label:
    """The printed picture of a packet: names of colors, and its words."""

    base: str
    band: str
    words: str
    ink: str = "cap"
    repeats: int = 4


def write_food(folder: Path, style: Style) -> None:
    """Write the objects below `folder`."""
    root = folder / FOLDER
    _tin(root, style, "alphabet_soup", Label(base="soup", band="soup_label", words="SOUP"))
    _tin(root, style, "tomato_sauce", Label(base="tomato", band="tomato_label", words="TOMATO"))
    _ketchup(root, style)
    _milk_carton(root, style, "milk", Label(base="milk", band="milk_label", words="MILK"))
    juice = Label(base="juice", band="juice_label", words="ORANGE")
    _milk_carton(root, style, "orange_juice", juice)
    cheese = Label(base="cheese", band="cheese_label", words="CHEESE")
    _packet(root, style, "cream_cheese", cheese, (0.0406, 0.0213, 0.0089))
    butter = Label(base="butter", band="butter_label", words="BUTTER", ink="butter")
    _packet(root, style, "butter", butter, (0.0381, 0.0198, 0.0087))
    pudding = Label(base="pudding", band="pudding_label", words="CHOCO", ink="pudding")
    _packet(root, style, "chocolate_pudding", pudding, (0.0401, 0.0232, 0.0137))
    cookies = Label(base="cookies", band="cookies_label", words="COOKIES", ink="cookies")
    _packet(root, style, "cookies", cookies, (0.0310, 0.0413, 0.0094))
    _bbq(root, style)
    salad = Label(base="dressing", band="dressing_label", words="SALAD")
    _dressing(root, style, "salad_dressing", salad)
    new = Label(base="new_dressing", band="new_dressing_label", words="NEW", ink="bbq")
    _dressing(root, style, "new_salad_dressing", new, inner="sald_dressing_body")


# Mass (kg), center of mass (m), inertia (kg m2) about the axes of the body.
WEIGHTS: dict[str, tuple[float, Vector, Vector]] = {
    "alphabet_soup": (0.0259, (0.0, -0.0008, -0.0027), (1.82e-5, 1.34e-5, 1.87e-5)),
    "tomato_sauce": (0.0266, (0.0006, -0.0008, -0.0023), (1.88e-5, 1.39e-5, 1.94e-5)),
    "ketchup": (0.0232, (0.0004, -0.009, 0.0008), (3.79e-5, 6.99e-6, 4.03e-5)),
    "orange_juice": (0.0317, (-0.0004, -0.012, 0.0), (4.33e-5, 1.45e-5, 4.34e-5)),
    "milk": (0.0317, (0.0004, -0.012, 0.0), (4.33e-5, 1.45e-5, 4.34e-5)),
    "cream_cheese": (0.0062, (0, 0, 0), (1.10e-6, 3.57e-6, 4.34e-6)),
    "butter": (0.0052, (0, 0, 0), (8.16e-7, 2.67e-6, 3.22e-6)),
    "chocolate_pudding": (0.0102, (-0.0005, 0, 0.0006), (2.46e-6, 6.10e-6, 7.28e-6)),
    "cookies": (0.0096, (0, 0, 0), (5.77e-6, 3.38e-6, 8.58e-6)),
    "bbq_sauce": (0.0122, (0, 0, -0.0076), (1.12e-5, 1.21e-5, 2.60e-6)),
    "salad_dressing": (0.0218, (-0.0005, -0.0056, 0.0002), (3.40e-5, 5.19e-6, 3.52e-5)),
    "new_salad_dressing": (0.0218, (-0.0005, -0.0056, 0.0002), (3.40e-5, 5.19e-6, 3.52e-5)),
}
# Heights of the bottom site (m), radius of the placement circle (m).
PLACEMENT: dict[str, tuple[float, float, float]] = {
    "alphabet_soup": (-0.04, 0.04, 0.025),
    "cream_cheese": (-0.025, 0.025, 0.03),
    "butter": (-0.02, 0.02, 0.02),
    "milk": (-0.06, 0.04, 0.03),
    "bbq_sauce": (-0.06, 0.06, 0.015),
}


def _start(name: str, upright: bool, inner: str | None = None) -> tuple[Model, Part]:
    """The file and its body, weighed, in the frame in which we describe it.

    inner: name of a body 5 cm above the object's origin that holds everything.
    """
    bottom, top, radius = PLACEMENT.get(name, (-0.06, 0.04, 0.025))
    model, part = object_model(name, bottom, top, radius)
    if inner is not None:
        part = part.child(inner, (0, 0.05, 0))
    part.weight(*WEIGHTS[name])
    return model, Part(body=part.body, frame=UPRIGHT) if upright else part


def _print(root: Path, style: Style, name: str, model: Model, label: Label) -> str:
    """Draw the label beside the file and return its material."""
    colors = [style.color(each) for each in (label.base, label.band, label.ink)]
    base, band, ink = colors
    picture = textures.label(base, band, label.words, ink, label.repeats)
    textures.save(root / name / "texture_map.png", picture)
    model.texture("tex-label", "texture_map.png")
    return model.material("label", texture="tex-label")


def _tin(root: Path, style: Style, name: str, label: Label) -> None:
    """A tin: 62 mm across, 76 mm high, a printed label between two metal rims."""
    model, part = _start(name, upright=True)
    printed = _print(root, style, name, model, label)
    # rims and lid are tinted like the tin, so that tins differ from above, too
    pairs = zip(style.color("tin"), style.color(label.base), strict=True)
    tinted = [0.45 * gray + 0.4 * hue for gray, hue in pairs]
    metal = model.material("metal", (*tinted, 1))
    center = (0.0, 0.0035, -0.0006)
    prism(part, 0.0316, 0.0377, center)
    side = lathe([(0.0315, -0.033), (0.0315, 0.034)], printed=True)
    part.mesh(model.mesh("side", side), printed, center)
    rim = [(0, -0.0377), (0.0323, -0.0377), (0.0323, -0.033), (0.0315, -0.033)]
    part.mesh(model.mesh("foot", lathe(rim)), metal, center)
    lid = [(0.0315, 0.034), (0.0323, 0.034), (0.0323, 0.039), (0.030, 0.039), (0.030, 0.037)]
    part.mesh(model.mesh("lid", lathe([*lid, (0, 0.037)])), metal, center)
    model.write(root / name / f"{name}.xml")


def _milk_carton(root: Path, style: Style, name: str, label: Label) -> None:
    """A carton with a gable roof, 53 x 53 x 131 mm."""
    model, part = _start(name, upright=True)
    printed = _print(root, style, name, model, label)
    part.solid("box", (0.0263, 0.0263, 0.0548), (0, 0, -0.015))
    for sign in (-1, 1):
        lean = turn("x", -sign * 0.62)
        part.solid("box", (0.0263, 0.0138, 0.0022), (0, 0.0134 * sign, 0.0478), lean)
    part.solid("box", (0.0265, 0.0035, 0.003), (0, 0, 0.0585))
    body = carton((0.0266, 0.0266, 0.0548), roof=0.019)
    part.mesh(model.mesh("body", body), printed, (0, 0, -0.015))
    seam = model.material("seam", style.rgba(label.band))
    part.look("box", (0.0266, 0.0012, 0.0055), seam, (0, 0, 0.0605))
    model.write(root / name / f"{name}.xml")


def _ketchup(root: Path, style: Style) -> None:
    """A flat bottle with shoulders and a white cap, 146 mm high."""
    model, part = _start("ketchup", upright=True)
    label = Label(base="ketchup", band="ketchup_label", words="KETCHUP", ink="ketchup", repeats=2)
    printed = _print(root, style, "ketchup", model, label)
    middle = (0.0004, -0.0008)
    part.solid("box", (0.0281, 0.0170, 0.0331), (*middle, -0.0394))
    part.solid("box", (0.0239, 0.0183, 0.0113), (*middle, 0.0037))
    part.solid("box", (0.0187, 0.0183, 0.0113), (*middle, 0.0251))
    prism(part, 0.0175, 0.0185, (*middle, 0.0547))
    cap = model.material("cap", style.rgba("cap"))
    outline = [(0.0, -0.072), (0.030, -0.072), (0.032, -0.060), (0.031, -0.012), (0.024, 0.016)]
    body = lathe([*outline, (0.0165, 0.036), (0.0, 0.036)], printed=True)
    body.vertices[:, 1] *= 0.64
    part.mesh(model.mesh("body", body), printed, (*middle, 0))
    top = [(0.0, 0.036), (0.0165, 0.036), (0.0155, 0.066), (0.010, 0.0735), (0.0, 0.0735)]
    part.mesh(model.mesh("cap", lathe(top)), cap, (*middle, 0))
    model.write(root / "ketchup" / "ketchup.xml")


def _bbq(root: Path, style: Style) -> None:
    """A squat brown bottle, 107 mm high; it stands with z up."""
    model, part = _start("bbq_sauce", upright=False)
    label = Label(base="bbq", band="bbq_label", words="BBQ", ink="bbq", repeats=2)
    printed = _print(root, style, "bbq_sauce", model, label)
    part.solid("box", (0.0235, 0.0145, 0.0268), (0, 0, -0.0278))
    part.solid("box", (0.0181, 0.0143, 0.0146), (0, 0, 0.0123))
    part.solid("box", (0.0145, 0.0147, 0.0134), (0, 0, 0.0391))
    outline = [(0, -0.0545), (0.0238, -0.0545), (0.0245, -0.008), (0.018, 0.020), (0.012, 0.027)]
    body = lathe([*outline, (0, 0.027)], printed=True)
    body.vertices[:, 1] *= 0.62
    part.mesh(model.mesh("body", body), printed)
    cap = lathe([(0.0145, 0.027), (0.0140, 0.0525), (0, 0.0525)])
    part.mesh(model.mesh("cap", cap), model.material("cap", style.rgba("cap")))
    model.write(root / "bbq_sauce" / "bbq_sauce.xml")


# Half sizes (width, depth, height), offset and height of the boxes of a dressing bottle.
DRESSING_BOXES: tuple[tuple[Vector, float, float], ...] = (
    ((0.0173, 0.0173, 0.0032), -0.001, -0.0695),
    ((0.0222, 0.0173, 0.0056), -0.001, -0.0572),
    ((0.0264, 0.0173, 0.0210), -0.001, -0.0314),
    ((0.0229, 0.0173, 0.0056), -0.001, -0.0043),
    ((0.0171, 0.0173, 0.0056), -0.001, 0.0072),
    ((0.0129, 0.0149, 0.0274), 0.0005, 0.0084),
)


def _dressing(root: Path, style: Style, name: str, label: Label, inner: str | None = None) -> None:
    """A round-shouldered bottle with a cap, 146 mm high."""
    model, part = _start(name, upright=True, inner=inner)
    printed = _print(root, style, name, model, label)
    for half, x, z in DRESSING_BOXES:
        part.solid("box", half, (x, -0.0002, z))
    prism(part, 0.0165, 0.0186, (0, -0.0004, 0.0542))
    outline = [(0, -0.0727), (0.020, -0.0727), (0.0265, -0.055), (0.0265, -0.012), (0.0150, 0.016)]
    body = lathe([*outline, (0.0128, 0.036), (0, 0.036)], printed=True)
    body.vertices[:, 1] *= 0.68
    part.mesh(model.mesh("body", body), printed, (-0.001, -0.0002, 0))
    top = [(0, 0.0356), (0.0165, 0.0356), (0.0160, 0.0728), (0, 0.0728)]
    cap = model.material("cap", style.rgba(label.band))
    part.mesh(model.mesh("cap", lathe(top)), cap, (0, -0.0004, 0))
    model.write(root / name / f"{name}.xml")


def _packet(root: Path, style: Style, name: str, label: Label, half: Vector) -> None:
    """A flat packet lying on its largest face."""
    model, part = _start(name, upright=False)
    printed = _print(root, style, name, model, label)
    center = (-0.0005, 0, 0.0006) if name == "chocolate_pudding" else (0, 0, 0)
    part.solid("box", half, center)
    part.mesh(model.mesh("body", _flat_packet(half)), printed, center)
    model.write(root / name / f"{name}.xml")


def _flat_packet(half: Vector) -> Mesh:
    """A carton lying on its side, so that the words are on the top face, along x."""
    x, y, z = half
    box = carton((x, z, y))
    lying = box.vertices[:, [0, 2, 1]] * np.array([1, -1, 1])
    return Mesh(vertices=lying, faces=box.faces, coordinates=box.coordinates)
