"""What the scene looks like: camera pose, lamps, surfaces. Nothing here touches the physics.

Each axis changes fields of the MuJoCo model in place; `LOOK_FIELDS` are put back before every episode.
"""

from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from libero_eval.env.camera import CAMERA_NAMES

LOOK_FIELDS = (
    "cam_pos", "cam_quat", "light_diffuse", "light_ambient", "light_dir", "mat_rgba", "mat_texid",
)  # fmt: skip
TARGET_M = 1.0  # how far before the camera the point lies that it keeps looking at
FLAT = 0  # mjTEXTURE_2D


def move_camera(sim: Any, rng: np.random.Generator, meters: float) -> None:
    """Move the third-person camera within a ball and aim it at the same point, the horizon level."""
    model = sim.model
    camera = model.camera(CAMERA_NAMES["agentview"]).id
    rotation = Rotation.from_quat(model.cam_quat[camera], scalar_first=True).as_matrix()
    target = model.cam_pos[camera] - TARGET_M * rotation[:, 2]  # a camera looks along -z
    direction = rng.normal(size=3)
    offset = direction / np.linalg.norm(direction) * meters * rng.random() ** (1 / 3)
    model.cam_pos[camera] += offset
    model.cam_quat[camera] = _looking(model.cam_pos[camera], target)


def _looking(position: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Quaternion (w, x, y, z) of a camera at `position` that looks at `target`, up is up."""
    back = (position - target) / np.linalg.norm(position - target)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    matrix = np.stack([right, np.cross(back, right), back], axis=1)
    return Rotation.from_matrix(matrix).as_quat(scalar_first=True)


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
    flat = [m for m in materials if _texture(model, m) >= 0]
    flat = [m for m in flat if model.tex_type[_texture(model, m)] == FLAT]
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
    materials = set()
    for geom in range(model.ngeom):
        body = model.body(model.geom_bodyid[geom]).name
        if model.geom_matid[geom] >= 0 and not body.startswith(prefixes):
            materials.add(int(model.geom_matid[geom]))
    return sorted(materials)


def _texture(model: Any, material: int) -> int:
    return int(model.mat_texid[material].max())
