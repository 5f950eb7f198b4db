"""The simulator: bit for bit LIBERO's own, order-free, and it renders only what is asked for."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if importlib.util.find_spec("robosuite") is None:
    pytest.skip("needs the libero extra", allow_module_level=True)

from invact_vla.core.errors import UserError
from invact_vla.core.schema import Observation
from libero_eval.env import scene
from libero_eval.env.assets.pack import ProceduralPack
from libero_eval.env.protocol import SETTLE_ACTION
from libero_eval.env.sim import LiberoSim
from tests.paths import LIBERO_ASSETS, REPOSITORY, needs_libero_assets

SETTLE = np.array(SETTLE_ACTION)


@pytest.fixture(scope="module")
def assets() -> Path:
    return ProceduralPack().build()


@pytest.fixture(scope="module")
def stove(assets: Path) -> LiberoSim:
    """Task 2: a stove, whose pose is drawn at every reset, and a knob."""
    return LiberoSim("libero_10", 2, assets, image_size=64)


def actions(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.clip(rng.normal(size=(count, 7)) * 0.5 + [0, 0, -0.3, 0, 0, 0, 0], -1, 1)


def rebuild(env: Any) -> None:
    """LIBERO's own reset, which rebuilds the model and wants its observables."""
    env._observables = env._setup_observables()
    env.reset()
    env._observables = {}


def test_step_equals_robosuites_step(stove: LiberoSim) -> None:
    stove.reset(0, settle=False)
    for action in actions(8):
        stove.env.step(action)  # robosuite's own
    expected = stove.state_hash()
    stove.reset(0, settle=False)
    for action in actions(8):
        stove.step(action)
    assert stove.state_hash() == expected


def test_resets_equal_the_public_serial_loop(stove: LiberoSim, assets: Path) -> None:
    """Seed once, then per episode: rebuild the model, set the init state, settle."""
    env = scene.build_env("libero_10", stove.task, assets)
    poses = []
    with scene.numpy_seed(0):
        for episode in range(3):
            rebuild(env)
            env.sim.set_state_from_flattened(stove._init_states[episode])
            env.sim.forward()
            for _ in range(3):
                env.step(SETTLE)
            poses.append(scene.fixture_poses(env))
    fast = LiberoSim("libero_10", 2, assets, settle_steps=3)
    fast.reset(2)  # alone, without the episodes before it
    np.testing.assert_array_equal(scene.fixture_poses(fast.env), poses[2])
    np.testing.assert_array_equal(fast.state(), env.sim.get_state().flatten())
    assert not np.array_equal(poses[0], poses[1]), "the stove is placed anew at every reset"


def test_episodes_are_order_free(stove: LiberoSim) -> None:
    before = np.random.get_state()[1].copy()  # type: ignore[index]
    stove.reset(1)
    first = stove.state_hash()
    for action in actions(3):
        stove.step(action)
    stove.reset(0)
    stove.reset_random(7)
    layout = stove.state_hash()
    np.random.random(3)
    stove.reset(1)
    assert stove.state_hash() == first
    stove.reset_random(7)
    assert stove.state_hash() == layout
    stove.reset_random(8)
    assert stove.state_hash() != layout
    np.random.seed(5)
    expected = np.random.RandomState(5).random()
    stove.reset(0)
    assert np.random.random() == expected, "the global generator is left alone"
    assert before is not None


def test_seed_at_every_reset_draws_fixtures_as_a_new_environment(
    stove: LiberoSim, assets: Path
) -> None:
    """The episodes of a loop that seeds with 1000 + i before each reset, in any order."""
    sim = LiberoSim("libero_10", 2, assets, image_size=64, reset_seed=1000, reseed=True)
    poses = {}
    for episode in (3, 0, 3):
        sim.reset(episode, settle=False)
        found = scene.fixture_poses(sim.env)
        assert np.array_equal(poses.setdefault(episode, found), found)
        with scene.numpy_seed(1000 + episode):
            scene.soft_reset(stove.env)
        assert np.array_equal(scene.fixture_poses(stove.env), found)
    assert not np.array_equal(poses[0], poses[3])
    sim.close()


def test_observation(stove: LiberoSim) -> None:
    stove.reset(0)
    seen = stove.observation(("agentview", "wrist"))
    assert isinstance(seen, Observation) and seen.agentview.shape == (64, 64, 3)
    assert seen.wrist is not None and seen.wrist.shape == (64, 64, 3)
    assert seen.instruction == "turn on the stove and put the moka pot on it"
    np.testing.assert_array_equal(seen.agentview, stove.raw_image("agentview")[::-1, ::-1])
    assert seen.agentview.std() > 10, "the picture shows something"
    np.testing.assert_allclose(seen.state[:3], stove.gripper_position(), atol=2e-3)
    assert abs(np.linalg.norm(seen.state[3:6]) - np.pi) < 0.1, "the hand points down"
    assert stove.observation(()).wrist is None and not stove.observation(()).agentview.any()
    again = stove.observation()
    np.testing.assert_array_equal(again.agentview, seen.agentview)


def test_step_does_not_render(assets: Path) -> None:
    sim = LiberoSim("libero_10", 2, assets)
    sim.reset(0, settle=False)
    sim.step(SETTLE)
    assert sim._camera is None
    sim.close()


def test_state_round_trip(stove: LiberoSim) -> None:
    stove.reset(0)
    for action in actions(5):
        stove.step(action)
    state, told = stove.state(), stove.state_hash()
    stove.step(SETTLE)
    assert stove.state_hash() != told
    stove.set_state(state)
    np.testing.assert_array_equal(stove.state(), state)
    assert stove.state_hash() == told
    with pytest.raises(UserError, match="numbers"):
        stove.set_state(state[:-1])


def test_predicates_and_progress(stove: LiberoSim) -> None:
    stove.reset(0)
    goals = dict(stove.predicates())
    assert goals == {"turnon flat_stove_1": False, "on moka_pot_1 flat_stove_1_cook_region": False}
    progress = stove.progress()
    assert (progress.satisfied, progress.total, progress.best) == (0, 2, 0)
    assert 0.05 < progress.closest_m < 1.0


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.zeros(6), "shape"),
        (np.array([np.nan, 0, 0, 0, 0, 0, 0]), "finite"),
        (np.array([1.5, 0, 0, 0, 0, 0, 0]), r"\[-1, 1\]"),
    ],
)
def test_wrong_actions_name_the_episode(stove: LiberoSim, action: np.ndarray, message: str) -> None:
    stove.reset(3)
    with pytest.raises(UserError, match=message) as error:
        stove.step(action)
    assert "init state 3" in str(error.value)


def test_wrong_arguments(assets: Path) -> None:
    with pytest.raises(UserError, match="unknown cameras"):
        LiberoSim("libero_10", 0, assets, cameras=("frontview",))
    with pytest.raises(UserError, match=r"0\.\.9"):
        LiberoSim("libero_10", 10, assets)
    with pytest.raises(UserError, match=r"0\.\.49"):
        LiberoSim("libero_10", 0, assets).reset(50)
    with pytest.raises(UserError, match="before the first reset"):
        LiberoSim("libero_10", 0, assets).step(SETTLE)


PUBLIC = """
import sys
import numpy as np
from pathlib import Path
from libero_eval.env import gl, libero_home
from libero_eval.env.init_states import init_states
from libero_eval.env.tasks import bddl_file, task_name
gl.probe()
libero_home.prepare(Path(sys.argv[1]))
task = int(sys.argv[2])
from libero.libero.envs import OffScreenRenderEnv
bddl = str(bddl_file("libero_10", task_name("libero_10", task)))
env = OffScreenRenderEnv(bddl_file_name=bddl, camera_heights=256, camera_widths=256)
env.seed(0)
rows = []
for episode in range(2):
    env.reset()
    env.set_init_state(init_states("libero_10", task)[episode])
    for step, action in enumerate(np.load("actions.npy")):
        seen = env.step(action)[0]
        if step >= 10 and step % 3 == 0:
            rows.append((seen["agentview_image"], seen["robot0_eye_in_hand_image"]))
np.save("frames.npy", np.array(rows))
"""


def compare_with_the_public_environment(folder: Path, assets: Path, task: int) -> None:
    """Pixel for pixel, in a process of its own: robosuite's GL contexts disturb ours."""
    played = np.concatenate([np.tile(SETTLE, (10, 1)), actions(9)])
    np.save(folder / "actions.npy", played)
    (folder / "public.py").write_text(PUBLIC)
    words = ["public.py", str(assets), str(task)]
    subprocess.run(
        [sys.executable, *words], check=True, cwd=folder, env=_path_with(REPOSITORY),
        capture_output=True,
    )  # fmt: skip
    expected = iter(np.load(folder / "frames.npy"))
    sim = LiberoSim("libero_10", task, assets, image_size=256)
    for episode in range(2):
        sim.reset(episode)
        for step, action in enumerate(played[10:], start=10):
            sim.step(action)
            if step % 3 == 0:
                agentview, wrist = next(expected)
                np.testing.assert_array_equal(sim.raw_image("agentview"), agentview)
                np.testing.assert_array_equal(sim.raw_image("wrist"), wrist)
    assert next(expected, None) is None
    sim.close()


@pytest.mark.slow
def test_frames_equal_the_public_environments(tmp_path: Path, assets: Path) -> None:
    compare_with_the_public_environment(tmp_path, assets, task=9)


@pytest.mark.slow
@needs_libero_assets
@pytest.mark.parametrize("task", [0, 2])
def test_official_frames_equal_the_public_environments(tmp_path: Path, task: int) -> None:
    """Task 2 has a mirror: the base of the stove."""
    assert LIBERO_ASSETS is not None
    compare_with_the_public_environment(tmp_path, LIBERO_ASSETS, task)


def _path_with(folder: Path) -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(folder)}
