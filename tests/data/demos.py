"""Small demonstrations for tests: LIBERO's HDF5 layout, with what a test wants otherwise."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from invact_vla.data.dataset import DatasetConfig, RobotEpisode, whole_episodes
from invact_vla.data.readers import open_dataset


def whole(path: Path, wrist: bool = False) -> list[RobotEpisode]:
    """All demonstrations of a data set in memory."""
    return list(whole_episodes(open_dataset(DatasetConfig(path=path)), wrist))


STEPS, SIZE = 12, 16
NAME = "KITCHEN_SCENE1_open_the_top_drawer_demo.hdf5"


def demonstration(seed: int = 0, steps: int = STEPS, fingers: bool = True) -> dict[str, Any]:
    """Arrays by their keys in the group: a hand that closes at a third and opens at two thirds."""
    rng = np.random.default_rng(seed)
    actions = rng.uniform(-0.9, 0.9, (steps, 7))
    closed = (np.arange(steps) >= steps // 3) & (np.arange(steps) < 2 * steps // 3)
    actions[:, 6] = np.where(closed, 1.0, -1.0)
    width = np.full(steps, 0.04)
    width[1:] = np.where(closed[:-1], 0.01, 0.04)
    if not fingers:
        width[:] = 0.03
    return {
        "actions": actions,
        "obs/agentview_rgb": rng.integers(0, 255, (steps, SIZE, SIZE, 3), dtype=np.uint8),
        "obs/eye_in_hand_rgb": rng.integers(0, 255, (steps, SIZE, SIZE, 3), dtype=np.uint8),
        "obs/ee_pos": rng.normal(size=(steps, 3)),
        "obs/ee_ori": rng.normal(size=(steps, 3)),
        "obs/gripper_states": np.stack([width, -width], axis=1),
    }


def write_hdf5(
    path: Path,
    demos: dict[str, dict[str, Any]],
    attributes: dict[str, Any] | None = None,
    language: str | None = None,
) -> Path:
    """A file of demonstrations by their names; values of None are left out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        for name, value in (attributes or {}).items():
            data.attrs[name] = value
        if language is not None:
            data.attrs["problem_info"] = json.dumps({"language_instruction": language})
        for name, arrays in demos.items():
            group = data.create_group(name)
            for key, array in arrays.items():
                if array is not None:
                    group[key] = array
    return path


def one_file(folder: Path, count: int = 2, **changes: Any) -> Path:
    """`count` demonstrations in a file of LIBERO's name, each with some arrays changed."""
    demos = {f"demo_{i}": {**demonstration(i), **changes} for i in range(count)}
    return write_hdf5(folder / NAME, demos)
