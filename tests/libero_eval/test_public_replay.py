"""Files of `invact libero demos` through other people's code: plain h5py and LIBERO's own environment.

Nothing of the package reads the file or steps the simulator here, as in OpenVLA's regeneration of
LIBERO's data: reset, set the first state, ten steps with the gripper open, then the recorded actions
without the no-ops.
"""

import importlib
import importlib.util
import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if importlib.util.find_spec("robosuite") is None:
    pytest.skip("needs the libero extra", allow_module_level=True)
import h5py

from libero_eval.demos.command import DemosConfig, main
from libero_eval.demos.recording import model_xml
from libero_eval.env import gl, libero_home
from libero_eval.env.assets.pack import ProceduralPack
from libero_eval.env.sim import LiberoSim
from libero_eval.env.tasks import bddl_file

SETTLE = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0]
SUITE = "libero_10"


def kept_actions(actions: np.ndarray) -> list[np.ndarray]:
    """Without no-ops: no motion, and the gripper as in the action kept before."""
    kept: list[np.ndarray] = []
    for action in actions:
        moves = np.linalg.norm(action[:6]) >= 1e-4
        if moves or (kept and action[6] != kept[-1][6]):
            kept.append(action)
    return kept


def open_public_env(file: Any) -> Any:
    """LIBERO's environment of the file's task, as its scripts open it."""
    from libero.libero.envs import OffScreenRenderEnv

    bddl = bddl_file(SUITE, Path(file["data"].attrs["bddl_file_name"]).stem)
    env = OffScreenRenderEnv(bddl_file_name=str(bddl), camera_heights=32, camera_widths=32)
    env.seed(0)
    return env


def succeeds(env: Any, demo: Any, by_model_file: bool) -> bool:
    env.reset()
    if by_model_file:
        env.reset_from_xml_string(demo.attrs["model_file"])
        env.sim.reset()
    env.set_init_state(demo["states"][0])
    for _ in range(10):
        env.step(SETTLE)
    return any(env.step(action.tolist())[2] for action in kept_actions(demo["actions"][()]))


def replay_file(path: Path, by_model_file: bool) -> list[bool]:
    """One outcome a demonstration. Run it in a process of its own: robosuite's GL contexts linger."""
    gl.probe()
    libero_home.prepare(ProceduralPack().build())
    with h5py.File(path, "r") as file:
        env = open_public_env(file)
        names = [f"demo_{i}" for i in range(file["data"].attrs["num_demos"])]
        outcomes = [succeeds(env, file["data"][name], by_model_file) for name in names]
        env.close()
    return outcomes


@pytest.mark.slow
@pytest.mark.parametrize("task", [3, 7])
def test_public_replay_reaches_success(task: int, tmp_path: Path) -> None:
    """By the model file, which holds the fixtures' poses, and where nothing is fixed, without it."""
    config = DemosConfig(
        out=tmp_path / "run", tasks=(task,), n_per_task=2, image_size=32, workers=0
    )
    run = main(config)
    (path,) = run.glob("*.hdf5")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        assert process.submit(replay_file, path, True).result() == [True, True]
        if task == 7:
            assert process.submit(replay_file, path, False).result() == [True, True]


@pytest.mark.parametrize("task", [2, 5, 9])
def test_the_stored_scene_can_be_loaded(task: int) -> None:
    sim = LiberoSim("libero_10", task, ProceduralPack().build())
    sim.reset(1)
    mujoco: Any = importlib.import_module("mujoco")  # after the choice of a GL backend
    model = mujoco.MjModel.from_xml_string(model_xml(sim))
    assert (model.nq, model.nv) == (sim.model.nq, sim.model.nv)
    np.testing.assert_allclose(model.body_pos, sim.model.body_pos, atol=1e-5)
    sim.close()


def test_no_ops_are_rare(tmp_path: Path) -> None:
    """A demonstration has nothing to filter, and the file alone says how to rebuild its scene."""
    config = DemosConfig(
        out=tmp_path / "run", tasks=(7,), n_per_task=1, image_size=32, workers=0, verify=False
    )
    (path,) = main(config).glob("*.hdf5")
    with h5py.File(path, "r") as file:
        demo = file["data/demo_0"]
        actions = demo["actions"][()]
        assert len(kept_actions(actions)) == len(actions)
        assert set(np.unique(actions[:, 6])) == {-1.0, 1.0} and np.abs(actions).max() <= 1
        assert demo.attrs["model_file"].startswith("<mujoco")
        arguments = json.loads(file["data"].attrs["env_args"])
        assert arguments["env_kwargs"]["controller"] == "OSC_POSE"
