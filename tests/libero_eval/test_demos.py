"""Demonstration files: LIBERO's layout, the same bytes whatever happens on the way."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

if importlib.util.find_spec("robosuite") is None:
    pytest.skip("needs the libero extra", allow_module_level=True)
import h5py

from invact_vla.core.errors import UserError
from invact_vla.core.files import hash_file
from invact_vla.data.dataset import DatasetConfig
from invact_vla.data.readers import open_dataset
from libero_eval.demos import command as demos
from libero_eval.demos.command import Attempt, DemosConfig, main
from libero_eval.demos.recording import add_noise
from libero_eval.env.assets.pack import ProceduralPack
from libero_eval.env.protocol import Protocol
from libero_eval.env.sim import LiberoSim
from libero_eval.policies import NOOP_ACTION, DemonstratorConfig, NoopConfig
from tests.data.demos import whole
from tests.paths import REPOSITORY

NAME = (
    "LIVING_ROOM_SCENE1_put_both_the_alphabet_soup_and_the_cream_cheese_box_in_the_basket_demo.hdf5"
)


def config(out: Path, **changes: object) -> DemosConfig:
    values = {"tasks": (7,), "n_per_task": 2, "image_size": 32, "verify": False, "workers": 0}
    return DemosConfig(out=out, noise_prob=0.3, **{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return main(config(tmp_path_factory.mktemp("demos") / "run"))


def test_layout_is_liberos(made: Path) -> None:
    with h5py.File(made / NAME, "r") as file:
        data = file["data"]
        assert data.attrs["num_demos"] == 2 == len(data)
        assert json.loads(data.attrs["problem_info"])["language_instruction"].startswith("put both")
        assert data.attrs["bddl_file_name"].endswith(".bddl")
        demo = data["demo_0"]
        length = demo.attrs["num_samples"]
        assert data.attrs["total"] == sum(data[d].attrs["num_samples"] for d in data)
        shapes = {
            "actions": (7,), "states": (84,), "robot_states": (9,), "rewards": (), "dones": (),
            "obs/agentview_rgb": (32, 32, 3), "obs/ee_pos": (3,), "obs/ee_ori": (3,),
            "obs/ee_states": (6,), "obs/gripper_states": (2,), "obs/joint_states": (7,),
        }  # fmt: skip
        for name, shape in shapes.items():
            assert demo[name].shape == (length, *shape), name
        assert demo["actions"].dtype == np.float64 and demo["obs/agentview_rgb"].dtype == np.uint8
        assert demo["dones"][()].tolist() == [0] * (length - 1) + [1]
        np.testing.assert_array_equal(demo.attrs["init_state"], demo["states"][0])
        changed = np.any(demo["actions"][()] != demo["expert_actions"][()], axis=1)
        assert 0.15 < changed.mean() < 0.45, "noise in about 30 % of the steps"


def test_read_by_post_training(made: Path) -> None:
    first, _ = whole(made / NAME)
    assert first.instruction.startswith("put both the alphabet soup")
    assert set(np.unique(first.actions[:, 6])) == {0.0, 1.0}
    assert not first.actions[:, 3:6].any()


def test_lerobot_holds_the_same(tmp_path: Path) -> None:
    run = main(config(tmp_path / "run", n_per_task=1, wrist=True, lerobot=True))
    (ours,) = whole(run / NAME, wrist=True)
    (theirs,) = whole(run / "lerobot", wrist=True)
    assert theirs.instruction == ours.instruction
    np.testing.assert_allclose(theirs.actions, ours.actions, atol=1e-7)
    np.testing.assert_array_equal(theirs.state, ours.state)
    assert np.abs(theirs.agentview.astype(int) - ours.agentview).mean() < 8
    assert theirs.wrist is not None and theirs.wrist.shape == theirs.agentview.shape


def test_frames_and_states_belong_together(made: Path) -> None:
    """Re-rendering a stored state gives the stored frame, up to the 4 ms of observation delay."""
    sim = LiberoSim("libero_10", 7, ProceduralPack().build(), image_size=32)
    with h5py.File(made / NAME, "r") as file:
        demo = file["data/demo_1"]
        sim.reset_random(int(demo.attrs["layout_seed"]))
        np.testing.assert_array_equal(sim.state(), demo["states"][0])
        np.testing.assert_array_equal(sim.raw_image("agentview"), demo["obs/agentview_rgb"][0])
        sim.set_state(demo["states"][40])
        stored = demo["obs/agentview_rgb"][40].astype(float)
        assert np.abs(sim.raw_image("agentview") - stored).mean() < 3
    sim.close()


def test_interrupted_run_gives_the_same_bytes(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def first_only(*args: object) -> Iterator[tuple[Attempt, bool]]:
        yield next(run_all(*args))
        raise KeyboardInterrupt

    run_all = demos.run_all
    monkeypatch.setattr(demos, "run_all", first_only)
    with pytest.raises(KeyboardInterrupt):
        main(config(tmp_path / "run"))
    assert not (tmp_path / "run" / NAME).exists()
    monkeypatch.undo()
    main(config(tmp_path / "run"))
    assert hash_file(tmp_path / "run" / NAME) == hash_file(made / NAME)
    assert not (tmp_path / "run" / "parts").exists()


def test_failed_attempts_are_counted(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="0 of 2 demonstrations in 2 attempts"):
        main(config(tmp_path / "run", max_steps=3, max_attempts=1))


def test_noise_is_seeded_and_bounded() -> None:
    action = np.array([0.9, 0, 0, 0, 0, 0, 1.0])
    noisy = [add_noise(action, np.random.default_rng(s), 1.0, 5.0) for s in (0, 0, 1)]
    np.testing.assert_array_equal(noisy[0], noisy[1])
    assert not np.array_equal(noisy[0], noisy[2])
    assert np.abs(np.array(noisy)).max() <= 1 and not np.array(noisy)[:, 3:6].any()
    assert add_noise(action, np.random.default_rng(0), 0.0, 5.0) is action


def test_turns_with_a_policy(tmp_path: Path) -> None:
    """Its actions are executed and the expert's stored beside them; learned are only whole chunks of
    the expert's, also where a policy alone would never end."""
    turns = {"policy": NoopConfig(), "policy_prob": 0.25, "turn_steps": 10, "n_per_task": 1}
    run = main(config(tmp_path / "run", max_steps=600, **turns))
    with h5py.File(run / NAME, "r") as file:
        demo = file["data/demo_0"]
        experts = demo["interventions"][()].astype(bool)
        executed, wanted = demo["actions"][()], demo["expert_actions"][()]
    assert 0.6 < experts.mean() < 0.9, "a quarter of the turns is the policy's"
    changes = np.flatnonzero(np.diff(experts)) + 1
    assert len(changes) > 4 and not (changes % 10).any(), "whole turns"
    np.testing.assert_array_equal(executed[~experts], np.tile(NOOP_ACTION, ((~experts).sum(), 1)))
    assert np.any(executed[experts] != wanted[experts], axis=1).mean() < 0.5, "noise alone"
    numbers = open_dataset(DatasetConfig(path=run / NAME)).numbers(0)
    np.testing.assert_allclose(numbers.actions[:, :6], wanted[:, :6])
    assert all(experts[s : s + 7].all() for s in numbers.starts(8)) and len(numbers.starts(8))
    again = main(config(tmp_path / "again", max_steps=600, **turns))
    assert hash_file(again / NAME) == hash_file(run / NAME)


def test_nothing_to_learn_from_is_no_demonstration(tmp_path: Path) -> None:
    """A success in which the policy had every turn."""
    turns = {"policy": DemonstratorConfig(), "policy_prob": 0.99, "turn_steps": 400}
    with pytest.raises(UserError, match=r"0 of 1 demo.*the policy had every turn"):
        main(config(tmp_path / "run", n_per_task=1, max_attempts=1, **turns))


def test_a_policy_that_reads_more_than_is_shown_is_refused(tmp_path: Path) -> None:
    class Reads(NoopConfig):
        def for_protocol(self, protocol: Protocol) -> NoopConfig:
            protocol.check_cameras(("agentview", "wrist"))
            return self

    with pytest.raises(UserError, match="say --wrist true"):
        main(config(tmp_path / "run", policy=Reads()))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changes",
    [{"init": "demos"}, {"noise_prob": 1.5}, {"n_per_task": 0}, {"policy_prob": 1.0},
     {"turn_steps": 0}, {"policy": NoopConfig(), "lerobot": True},
     {"init": "init_states", "n_per_task": 51}],
)  # fmt: skip
def test_config_is_checked(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        DemosConfig(out=Path("x"), **changes)  # type: ignore[arg-type]


@pytest.mark.slow
def test_verified_demonstrations_replay(tmp_path: Path) -> None:
    run = main(config(tmp_path / "run", verify=True, n_per_task=1))
    sim = LiberoSim("libero_10", 7, ProceduralPack().build())
    with h5py.File(run / NAME, "r") as file:
        demo = file["data/demo_0"]
        sim.reset(5)
        sim.set_state(demo["states"][0], settle=True)
        assert any([sim.step(action) for action in demo["actions"][()]])


@pytest.mark.slow
def test_killed_run_gives_the_same_bytes(made: Path, tmp_path: Path) -> None:
    """SIGKILL with two workers, in the middle of an attempt."""
    words = f"--out {tmp_path}/run --tasks [7] --n_per_task 2 --image_size 32 --verify false"
    command = [sys.executable, "-m", "invact_vla.app.cli", "libero", "demos", *words.split()]
    command += ["--noise_prob", "0.3", "--workers", "2"]
    process = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL)
    time.sleep(8)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    subprocess.run(command, cwd=REPOSITORY, check=True, stderr=subprocess.DEVNULL)
    assert hash_file(tmp_path / "run" / NAME) == hash_file(made / NAME)
