"""Asset packs: the same names, joints, sites and sizes as LIBERO's own, and scenes that settle."""

import importlib.util
import math
import os
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from invact_vla.config.command import parse_config
from invact_vla.core.errors import UserError
from invact_vla.core.files import hash_tree
from libero_eval.env.assets.check import (
    CAPTION_PX,
    SHEET_COLUMNS,
    CheckConfig,
    check_task,
    main,
    settle,
)
from libero_eval.env.assets.pack import AssetPack, OfficialPack, ProceduralPack
from libero_eval.env.assets.procedural import robot
from libero_eval.env.assets.procedural.generate import write_scenes
from libero_eval.env.assets.procedural.mjcf import compose, rotate, turn
from libero_eval.env.assets.procedural.pictures import COLORS, Style
from libero_eval.env.assets.procedural.shapes import lathe
from tests.paths import LIBERO_ASSETS, needs_libero_assets

if importlib.util.find_spec("robosuite") is None:  # not imported here: GL must be chosen first
    pytest.skip("needs the libero extra", allow_module_level=True)

TASKS = range(10)
# task -> numbers in its init states: 1 + nq + nv
SIZES = dict(zip(TASKS, (123, 123, 47, 51, 84, 45, 71, 84, 47, 47), strict=True))
OBJECTS = (
    "stable_hope_objects/bbq_sauce",
    "stable_hope_objects/cookies",
    "stable_hope_objects/new_salad_dressing",
    "stable_hope_objects/salad_dressing",
    "stable_scanned_objects/glazed_rim_porcelain_ramekin",
    "stable_scanned_objects/white_bowl",
    "turbosquid_objects/wooden_tray",
    "turbosquid_objects/wooden_two_layer_shelf",
    "turbosquid_objects/yellow_book",
    "stable_hope_objects/alphabet_soup",
    "stable_hope_objects/butter",
    "stable_hope_objects/chocolate_pudding",
    "stable_hope_objects/cream_cheese",
    "stable_hope_objects/ketchup",
    "stable_hope_objects/milk",
    "stable_hope_objects/orange_juice",
    "stable_hope_objects/tomato_sauce",
    "stable_scanned_objects/akita_black_bowl",
    "stable_scanned_objects/basket",
    "stable_scanned_objects/chefmate_8_frypan",
    "stable_scanned_objects/plate",
    "turbosquid_objects/black_book",
    "turbosquid_objects/desk_caddy",
    "turbosquid_objects/moka_pot",
    "turbosquid_objects/porcelain_mug",
    "turbosquid_objects/red_coffee_mug",
    "turbosquid_objects/white_yellow_mug",
    "turbosquid_objects/wine_bottle",
    "turbosquid_objects/wine_rack",
)
FIXTURES = ("articulated_objects/flat_stove", "articulated_objects/microwave")
FIXTURES += ("articulated_objects/white_cabinet", "articulated_objects/wooden_cabinet")


@pytest.fixture(scope="module")
def procedural() -> Path:
    """The standard procedural pack, from the cache."""
    return ProceduralPack().build()


@pytest.fixture(scope="module", autouse=True)
def rendering() -> None:
    """A GL backend, or skip."""
    from libero_eval.env import gl

    try:
        gl.probe()
    except UserError as error:
        pytest.skip(str(error))


# -- the config


def test_every_pack_is_named_by_its_type() -> None:
    assert {"official", "procedural"} <= set(AssetPack.get_known_choices())
    assert AssetPack.from_type("procedural").name == "procedural"
    config = parse_config(CheckConfig, ["--assets.type", "official", "--assets.folder", "x"])
    assert config.assets == OfficialPack(folder=Path("x"))


def test_missing_pack_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"needs a folder.*--assets\.folder"):
        OfficialPack().build()
    with pytest.raises(UserError, match="no assets folder"):
        OfficialPack(folder=tmp_path / "nowhere").build()
    with pytest.raises(UserError, match=r"known: .*official, procedural"):
        AssetPack.from_type("photographs")
    with pytest.raises(ValueError, match="seed"):
        ProceduralPack(seed=-1)


def test_a_pack_is_made_once_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from libero_eval.env.assets.procedural import generate

    made = []

    def write(folder: Path, seed: int) -> None:
        made.append(seed)
        (folder / "scenes").mkdir()
        if seed == 3:
            raise OSError("disk full")

    monkeypatch.setattr(generate, "write_pack", write)
    pack = ProceduralPack(folder=tmp_path, seed=2)
    assert pack.build() == pack.build()
    assert made == [2]
    with pytest.raises(OSError, match="disk full"):
        ProceduralPack(folder=tmp_path, seed=3).build()
    assert [path.name for path in tmp_path.iterdir()] == [pack.build().name]


def test_same_seed_same_bytes_other_seed_other_colors(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        write_scenes(tmp_path / name, seed)
    hashes = [hash_tree(tmp_path / name) for name in "abc"]
    assert hashes[0] == hashes[1] != hashes[2]


def test_colors_stay_near_their_names() -> None:
    for name, color in COLORS.items():
        assert Style(0).color(name) == color
        varied = np.array([Style(seed).color(name) for seed in range(1, 9)])
        assert np.abs(varied - color).max() < 0.45
        assert ((varied >= 0) & (varied <= 1)).all()


# -- geometry helpers


def test_quaternions() -> None:
    quarter = turn("z", math.pi / 2)
    assert np.allclose(rotate(quarter, (1, 0, 0)), (0, 1, 0))
    both = compose(turn("x", math.pi / 2), quarter)
    assert np.allclose(rotate(both, (1, 0, 0)), (0, 0, 1))


def test_a_turned_profile_is_closed_and_outward() -> None:
    mesh = lathe([(0, 0), (1, 0), (1, 2), (0, 2)], segments=32)
    a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
    volume = np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6
    assert math.isclose(volume, 2 * math.pi, rel_tol=0.02)


def test_thinning_keeps_the_shape() -> None:
    ball = lathe([(math.sin(t), -math.cos(t)) for t in np.linspace(0, math.pi, 60)], segments=90)
    vertices, faces = robot.thin(ball.vertices, ball.faces, cell=0.3)
    assert len(faces) < len(ball.faces) / 10
    used = vertices[np.unique(faces)]
    assert np.abs(np.linalg.norm(used, axis=1) - 1).max() < 0.06


def test_light_robot_keeps_what_physics_reads(procedural: Path) -> None:
    own, light = robot.robosuite_assets(), procedural / "robosuite"
    for name in robot.LIGHTENED:
        before, after = ET.parse(own / name).getroot(), ET.parse(light / name).getroot()
        for mesh in [*before.iter("mesh"), *after.iter("mesh")]:
            mesh.attrib.pop("inertia", None)
            mesh.attrib["file"] = str(Path(mesh.attrib["file"]).with_suffix(""))
        assert ET.tostring(before) == ET.tostring(after)
    for name in ("hand.stl", "finger.stl"):
        path = Path("grippers/meshes/panda_gripper") / name
        assert (own / path).read_bytes() == (light / path).read_bytes()
    assert sum(_faces(path) for path in light.rglob("*_vis*.stl")) < 12_000


def _faces(path: Path) -> int:
    return len(robot._read_stl(path)) // 3


# -- against LIBERO's own files


def _parsed(assets: Path, name: str) -> ET.Element:
    file = assets / (f"{name}.xml" if "articulated" in name else f"{name}/{Path(name).name}.xml")
    return ET.parse(file).getroot()


def _numbers(element: ET.Element, attribute: str) -> np.ndarray:
    return np.array([float(word) for word in element.get(attribute, "0 0 0").split()])


def _joints_and_sites(root: ET.Element) -> dict[str, tuple]:
    """Name -> what must be equal, joints and sites in the order of the file."""
    found: dict[str, tuple] = {}
    for element in root.iter():
        if element.tag == "joint":
            keys = ("type", "axis", "range", "damping")
            numbers = [element.get(keys[0]), *(_numbers(element, key) for key in keys[1:])]
            found[f"joint {element.get('name')}"] = tuple(numbers)
        if element.tag == "site":
            found[f"site {element.get('name')}"] = (_numbers(element, "pos"),)
    return found


def _body_tree(root: ET.Element) -> list[str | None]:
    return [body.get("name") for body in root.iter("body")]


@needs_libero_assets
@pytest.mark.parametrize("name", [*OBJECTS, *FIXTURES])
def test_bodies_joints_and_sites_are_liberos(name: str, procedural: Path) -> None:
    assert LIBERO_ASSETS is not None
    ours, theirs = _parsed(procedural, name), _parsed(LIBERO_ASSETS, name)
    assert _body_tree(ours) == _body_tree(theirs)
    mine, other = _joints_and_sites(ours), _joints_and_sites(theirs)
    assert [k for k in mine if k.startswith("joint")] == [k for k in other if k.startswith("joint")]
    assert sorted(mine) == sorted(other)
    for key, values in other.items():
        for value, expected in zip(mine[key], values, strict=True):
            if isinstance(expected, str):
                assert value == expected
            else:
                assert np.allclose(value, expected, atol=6e-4), (key, value, expected)


def _extent(root: ET.Element) -> np.ndarray:
    """Bounding box (2, 3) of the collision boxes of a file, over all its bodies in place."""
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for body in root.iter("body"):
        place = _numbers(body, "pos") if body.get("pos") else np.zeros(3)
        offset = place if body.get("name") in ("burner",) else np.zeros(3)
        for geom in body.findall("geom"):
            if geom.get("group") != "0" or geom.get("type") != "box":
                continue
            quat = _numbers(geom, "quat") if geom.get("quat") else np.array([1.0, 0, 0, 0])
            quat = quat / np.linalg.norm(quat)
            axes = np.array([rotate(quat, axis) for axis in np.eye(3)])
            reach = np.abs(axes.T) @ _numbers(geom, "size")
            center = _numbers(geom, "pos") + offset
            low, high = np.minimum(low, center - reach), np.maximum(high, center + reach)
    return np.stack([low, high])


@needs_libero_assets
@pytest.mark.parametrize("name", OBJECTS)
def test_collision_extents_are_liberos_within_3_mm(name: str, procedural: Path) -> None:
    assert LIBERO_ASSETS is not None
    ours, theirs = _extent(_parsed(procedural, name)), _extent(_parsed(LIBERO_ASSETS, name))
    assert np.abs(ours - theirs).max() < 0.003, (ours, theirs)


# -- in the simulator


@pytest.mark.parametrize("task_id", TASKS)
def test_task_loads_settles_and_renders(task_id: int, procedural: Path) -> None:
    from libero_eval.env.sim import LiberoSim

    sim = LiberoSim("libero_10", task_id, procedural, image_size=64)
    result = check_task(sim, CheckConfig(init_states=1, image_size=64))
    assert not result.faults
    assert sim.state().shape == (SIZES[task_id],)
    assert all(isinstance(holds, bool) for _, holds in sim.predicates())
    sim.close()


@pytest.mark.parametrize("suite", ["libero_spatial", "libero_object", "libero_goal", "libero_90"])
def test_other_suites_load_and_settle(suite: str, procedural: Path) -> None:
    """One task each here; `invact libero check --suite NAME` tries all."""
    from libero_eval.env.sim import LiberoSim

    sim = LiberoSim(suite, 4, procedural, image_size=32)
    assert not check_task(sim, CheckConfig(suite=suite, init_states=1, image_size=32)).faults
    sim.close()


@needs_libero_assets
@pytest.mark.parametrize("task_id", [0, 3, 4])
def test_objects_rest_where_liberos_rest(task_id: int, procedural: Path) -> None:
    from libero_eval.env.sim import LiberoSim

    assert LIBERO_ASSETS is not None
    rest = []
    for assets in (procedural, LIBERO_ASSETS):
        sim = LiberoSim("libero_10", task_id, assets)
        settlings = {each.name: each for each in settle(sim, 0)}
        rest.append({name: (each.drop, each.slide) for name, each in settlings.items()})
        sim.close()
    assert rest[0].keys() == rest[1].keys()
    for name, (drop, slide) in rest[0].items():
        assert abs(drop - rest[1][name][0]) < 0.0015, name
        assert abs(slide - rest[1][name][1]) < 0.004, name


def test_faults_are_found(procedural: Path) -> None:
    from libero_eval.env.assets.check import Settling

    fine = Settling(name="mug", slide=0.001, drop=0.07, tilt=1.0, drift=0.0, overlap=0.0)
    assert not list(fine.faults(0.02))
    bad = Settling(name="mug", slide=0.03, drop=0.5, tilt=40.0, drift=0.1, overlap=0.0)
    assert len(list(bad.faults(0.02))) == 4
    pushed = Settling(name="mug", slide=0.03, drop=0.0, tilt=0.0, drift=0.0, overlap=0.013)
    assert not list(pushed.faults(0.02)) and len(list(pushed.notes(0.02))) == 1


def test_the_command_checks_and_draws_the_first_frames(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = CheckConfig(tasks=[4], init_states=1, image_size=32, sheet=tmp_path / "sheet.png")
    assert main(config) == 0
    assert "1 of 1 tasks without fault" in capsys.readouterr().out
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet)
    assert pixels.shape == (32 + CAPTION_PX, SHEET_COLUMNS * 32, 3)
    assert pixels[CAPTION_PX:, :32].std() > 5 > pixels[CAPTION_PX:, 32:].std()
    with pytest.raises(UserError, match=r"has tasks 0\.\.9, got \[10\]"):
        main(CheckConfig(tasks=[10]))


def test_contact_sheets_are_small_and_current() -> None:
    folder = Path(__file__).parents[2] / "docs" / "images"
    for pack in ("procedural", "official"):
        assert os.path.getsize(folder / f"contact_{pack}.png") < 400_000
