"""What perturbations do to a scene: its look (camera pose, lamps, surfaces), and what stands in it.

The look changes fields of the MuJoCo model in place, and nothing of the physics; `LOOK_FIELDS` are put
back before every episode.
"""

import importlib
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from libero_eval.env.camera import CAMERA_NAMES

LOOK_FIELDS = (
    "cam_pos", "cam_quat", "light_diffuse", "light_ambient", "light_dir", "mat_rgba", "mat_texid",
)  # fmt: skip
TARGET_M = 1.0  # how far before the camera the point lies that it keeps looking at
FLAT = 0  # mjTEXTURE_2D
# name -> MJCF geom. Mocap bodies: solid and unmovable, and the flat state keeps its length.
SHAPES = {
    "box": 'type="box" size="0.022 0.022 0.03"',
    "ball": 'type="sphere" size="0.028"',
    "can": 'type="cylinder" size="0.024 0.04"',
    "brick": 'type="box" size="0.035 0.02 0.018"',
    "disc": 'type="cylinder" size="0.04 0.012"',
    "capsule": 'type="capsule" size="0.018 0.022"',
}
PREFIX = "distractor_"
PARKED_M = -5.0  # under the floor: not in this episode
# half sides in x and y of where they may stand, around the workspace's center
AREA_M = (0.28, 0.34)
RADIUS_M = 0.06  # free table needed around one
EVEN_M = 0.002  # a place is free if it is this level with the table
TABLE_M = 0.06  # the table top lies within this of the workspace's origin
GRID = 15  # rays along a side that find the table's height
FAR_M = 2.0  # above everything, where rays start
TRIES = 400


def move_camera(sim: Any, rng: np.random.Generator, meters: float) -> None:
    """Move the third-person camera within a ball and aim it at the same point, the horizon level."""
    model = sim.model
    camera = model.camera(CAMERA_NAMES["agentview"]).id
    rotation = Rotation.from_quat(model.cam_quat[camera], scalar_first=True).as_matrix()
    target = model.cam_pos[camera] - TARGET_M * rotation[:, 2]  # a camera looks along -z
    direction = rng.normal(size=3)
    offset = direction / np.linalg.norm(direction) * meters * rng.random() ** (1 / 3)
    model.cam_pos[camera] += offset
    back = model.cam_pos[camera] - target
    back /= np.linalg.norm(back)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    matrix = np.stack([right, np.cross(back, right), back], axis=1)
    model.cam_quat[camera] = Rotation.from_matrix(matrix).as_quat(scalar_first=True)


def change_light(sim: Any, rng: np.random.Generator, strength: float) -> None:
    """Scale each lamp's brightness by 1 +- strength and tilt it by up to 45 degrees x strength."""
    model = sim.model
    for lamp in range(model.nlight):
        scale = 1 + rng.uniform(-strength, strength)
        model.light_diffuse[lamp] *= scale
        model.light_ambient[lamp] *= scale
        tilted = model.light_dir[lamp] + strength * rng.uniform(-1, 1, size=3)
        model.light_dir[lamp] = tilted / np.linalg.norm(tilted)


def change_textures(sim: Any, rng: np.random.Generator, strength: float) -> None:
    """Tint the surfaces of the room and, with this probability each, give them another's texture."""
    model = sim.model
    materials = surface_materials(sim)
    texture_of = {m: int(model.mat_texid[m].max()) for m in materials}
    flat = [m for m, t in texture_of.items() if t >= 0 and model.tex_type[t] == FLAT]
    textures = {m: model.mat_texid[m].copy() for m in flat}
    for material in materials:
        model.mat_rgba[material, :3] *= 1 - strength * rng.random(3)
        donor = flat[int(rng.integers(len(flat)))] if flat else material
        if rng.random() < strength and material in textures:
            model.mat_texid[material] = textures[donor]


def surface_materials(sim: Any) -> list[int]:
    """Materials of everything that is neither robot nor object nor fixture: table, floor, walls."""
    model, env = sim.model, sim.env
    things = {**env.objects_dict, **env.fixtures_dict}
    prefixes = ("robot", "gripper", "mount", *(t.naming_prefix for t in things.values()))
    bodies = [model.body(body).name for body in model.geom_bodyid]
    pairs = zip(model.geom_matid, bodies, strict=True)
    return sorted({int(m) for m, body in pairs if m >= 0 and not body.startswith(prefixes)})


def add_distractors(xml: str) -> str:
    """The model with the distractors' bodies, parked under the floor."""
    bodies = "".join(
        f'<body name="{PREFIX}{name}" mocap="true" pos="{i} 0 {PARKED_M}">'
        f'<geom name="{PREFIX}{name}_geom" {shape} group="1" rgba="0.5 0.5 0.5 1"/></body>'
        for i, (name, shape) in enumerate(SHAPES.items())
    )
    head, worldbody, tail = xml.rpartition("</worldbody>")
    return head + bodies + worldbody + tail


def place_distractors(sim: Any, rng: np.random.Generator, count: int) -> None:
    """Stand `count` of them, colored at random, in free places of the table; fewer if it is full."""
    model, data = sim.model, sim.data
    data.mocap_pos[:, 2] = PARKED_M
    sim.env.sim.forward()
    table_z = _table_height(sim)
    for name in rng.permutation(list(SHAPES))[:count]:
        geom = model.geom(f"{PREFIX}{name}_geom").id
        model.geom_rgba[geom, :3] = rng.uniform(0.1, 0.95, size=3)
        place = _free_place(sim, rng, table_z)
        if place is None:
            return
        body = model.body_mocapid[model.geom_bodyid[geom]]
        place[2] += _half_height(model, geom) + 0.001
        data.mocap_pos[body] = place
        sim.env.sim.forward()


def _half_height(model: Any, geom: int) -> float:
    """Of the part of a shape above its middle, m."""
    mujoco: Any = importlib.import_module("mujoco")
    kind, size = model.geom_type[geom], model.geom_size[geom]
    if kind == mujoco.mjtGeom.mjGEOM_BOX:
        return float(size[2])
    if kind == mujoco.mjtGeom.mjGEOM_SPHERE:
        return float(size[0])
    return float(size[1] + (size[0] if kind == mujoco.mjtGeom.mjGEOM_CAPSULE else 0.0))


def _table_height(sim: Any) -> float:
    """The commonest height near the workspace's origin, m."""
    center = np.asarray(sim.env.workspace_offset, dtype=float)
    sides = [np.linspace(-half, half, GRID) for half in AREA_M]
    points = np.stack(np.meshgrid(*sides), axis=-1).reshape(-1, 2) + center[:2]
    heights = np.array([_height(sim, point, center[2]) for point in points])
    near = heights[np.abs(heights - center[2]) < TABLE_M].round(3)
    values, counts = np.unique(near, return_counts=True)
    return float(values[counts.argmax()]) if len(values) else float(center[2])


def _free_place(sim: Any, rng: np.random.Generator, table_z: float) -> np.ndarray | None:
    """A point on the bare table with nothing within RADIUS_M: (3,), or None if none was found."""
    center = np.asarray(sim.env.workspace_offset, dtype=float)[:2]
    angles = np.arange(8) * np.pi / 4
    around = RADIUS_M * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    for _ in range(TRIES):
        place = center + rng.uniform(-1, 1, size=2) * AREA_M
        points = [place, *(place + around), *(place + around / 2)]
        if all(abs(_height(sim, point, table_z) - table_z) < EVEN_M for point in points):
            return np.append(place, table_z)
    return None


def _height(sim: Any, xy: np.ndarray, table_z: float) -> float:
    """Height of the first solid surface below a point far above, m."""
    mujoco: Any = importlib.import_module("mujoco")
    start, down = np.array([*xy, table_z + FAR_M]), np.array([0.0, 0.0, -1.0])
    hit = np.zeros(1, dtype=np.int32)
    distance = mujoco.mj_ray(sim.model, sim.data, start, down, None, 1, -1, hit)
    return float(start[2] - distance) if distance >= 0 else -np.inf


def move_robot(sim: Any, rng: np.random.Generator, spread_rad: float) -> None:
    """Add normal noise to the arm's joints before the episode settles."""
    joints = sim.env.robots[0]._ref_joint_pos_indexes
    sim.data.qpos[joints] += rng.normal(size=len(joints)) * spread_rad
    sim.env.sim.forward()
