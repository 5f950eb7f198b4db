"""Demonstrations of every format as the doctor reads them."""

import importlib.util
from pathlib import Path

import h5py
import numpy as np
import pytest

if importlib.util.find_spec("robosuite") is None:
    pytest.skip("needs the libero extra", allow_module_level=True)

from invact_vla.core.errors import UserError
from invact_vla.data.dataset import RobotEpisode
from invact_vla.data.readers.lerobot_writer import write_lerobot
from libero_eval.doctor.checks.demonstration import conventions, orientation
from libero_eval.doctor.demonstrations import read_dataset, read_demonstrations
from libero_eval.env.tasks import task_instruction, task_name
from tests.libero_eval.test_doctor import context
from tests.paths import GOLDEN, needs_golden

STEPS, PIXELS = 30, 16


def motion() -> tuple[np.ndarray, np.ndarray]:
    """Actions (T, 7) in LIBERO's convention, and the state (T, 8) of a hand that follows them."""
    time = np.linspace(0, 6, STEPS)
    actions = np.zeros((STEPS, 7))
    actions[:, 0], actions[:, 1], actions[:, 2] = np.sin(time), np.cos(time), np.sin(2 * time)
    actions[:, 6] = np.where(np.arange(STEPS) > STEPS // 2, 1.0, -1.0)
    place = np.cumsum(actions[:, :3] * 0.02, axis=0)
    fingers = 0.02 - 0.01 * np.roll(actions[:, 6], 4)
    rest = np.zeros((STEPS, 3))
    state = np.concatenate([place, rest, fingers[:, None], -fingers[:, None]], axis=1)
    return actions, state.astype(np.float32)


def pictures() -> np.ndarray:
    """(T, H, W, 3) upright: one bright corner, upper left."""
    frames = np.zeros((STEPS, PIXELS, PIXELS, 3), np.uint8)
    frames[:, :4, :4] = 255
    return frames


def write_hdf5(path: Path, **changes: object) -> Path:
    """A file in LIBERO's layout; changes: other values, or None for what is left out."""
    actions, state = motion()
    values = {
        "actions": actions, "obs/agentview_rgb": pictures()[:, ::-1, ::-1],
        "obs/ee_pos": state[:, :3], "obs/ee_ori": state[:, 3:6], "obs/gripper_states": state[:, 6:],
        **changes,
    }  # fmt: skip
    with h5py.File(path, "w") as file:
        for name, value in values.items():
            if value is not None:
                file[f"data/demo_0/{name}"] = value
    return path


def check(path: Path, instruction: str, task: int | None, is_sensed: bool = True) -> None:
    found = read_demonstrations(path, "libero_10")
    demo = found.demos[0]
    assert (demo.instruction, demo.task_id, found.longest) == (instruction, task, STEPS)
    np.testing.assert_allclose(demo.actions, motion()[0], atol=1e-6)
    upright = demo.frames["agentview"][0][::-1, ::-1].astype(int)
    assert upright[1, 1].min() > 200 and upright[-2, -2].max() < 60
    looked = context(demos=found)
    assert conventions(looked).status == "pass" and orientation(looked).status == "skip"
    assert (demo.ee_pos is not None) == is_sensed


def test_lerobot(tmp_path: Path) -> None:
    actions, state = motion()
    trained = actions.copy()
    trained[:, 6] = (1 - actions[:, 6]) / 2
    words = task_instruction("libero_10", 3)
    write_lerobot(tmp_path, [RobotEpisode("a", words, pictures(), None, state, trained)])
    check(tmp_path, words, 3)


def test_hdf5_of_libero_and_of_others(tmp_path: Path) -> None:
    name = task_name("libero_10", 3)
    check(write_hdf5(tmp_path / f"{name}_demo.hdf5"), task_instruction("libero_10", 3), 3)
    own = write_hdf5(tmp_path / "fold_the_towel_demo.hdf5")
    check(own, "fold the towel", None)
    blind = {f"obs/{part}": None for part in ("ee_pos", "ee_ori", "gripper_states")}
    check(write_hdf5(own, **blind), "fold the towel", None, is_sensed=False)


def test_what_the_reader_cannot_tell_the_user_says(tmp_path: Path) -> None:
    actions, _ = motion()
    actions[:, 6] = (actions[:, 6] + 1) / 2
    blind = {f"obs/{part}": None for part in ("ee_pos", "ee_ori", "gripper_states")}
    path = write_hdf5(tmp_path / "fold_the_towel_demo.hdf5", actions=actions, **blind)
    with pytest.raises(UserError, match=r"--data\.gripper"):
        read_demonstrations(path, "libero_10")
    found = read_dataset(path, "libero_10", {"gripper": "open_is_zero"})
    np.testing.assert_allclose(found.demos[0].actions, motion()[0], atol=1e-6)


@needs_golden
def test_the_recorded_lerobot_sample() -> None:
    assert GOLDEN is not None
    found = read_demonstrations(GOLDEN / "lerobot_v3_tiny", "libero_10")
    expected = np.load(GOLDEN / "lerobot_v3_tiny_actions.npy")
    assert found.all_actions.shape == expected.shape == (28, 7)
    np.testing.assert_allclose(found.all_actions[:, :6], expected[:, :6], atol=1e-6)


@pytest.mark.parametrize(
    "name", ["actions", "obs/ee_pos", "obs/ee_ori", "obs/gripper_states", "states"]
)
def test_numbers_that_are_none_are_named(name: str, tmp_path: Path) -> None:
    path = write_hdf5(tmp_path / "fold_the_towel_demo.hdf5", states=np.zeros((STEPS, 4)))
    with h5py.File(path, "a") as file:
        file.copy("data/demo_0", "data/demo_1")
        assert read_demonstrations(path, "libero_10").longest == STEPS
        file[f"data/demo_1/{name}"][0] = np.nan
    with pytest.raises(UserError, match=r"demo_1 holds NaN or infinity"):
        read_demonstrations(path, "libero_10")


def test_what_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no demonstrations"):
        read_demonstrations(tmp_path / "nowhere", "libero_10")
    with pytest.raises(UserError, match="no demonstrations"):
        read_demonstrations(tmp_path, "libero_10")
