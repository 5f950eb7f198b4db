"""docs/new_task.md: every command and every line of Python in it, at tiny sizes."""

import importlib
import importlib.util
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from invact_vla.app.cli import COMMANDS, find_command
from invact_vla.config.command import parse_config
from invact_vla.data.dataset import DatasetConfig
from invact_vla.data.readers import open_dataset
from tests.paths import REPOSITORY

PAGE = (REPOSITORY / "docs/new_task.md").read_text()
TASK = "put_the_mug_away"
STEPS, DEMOS = 14, 3
TINY = {
    "configs/vla/init_cpu.yaml": "configs/vla/init_debug.yaml",
    "posttrain_cpu.yaml": "posttrain_debug.yaml --loop.steps 2 --loop.log_every 1 "
    "--loop.checkpoint_every 1",
    "rollout_cpu.yaml": "rollout_debug.yaml --policy.type checkpoint --max_steps 3 --episodes 1 "
    "--policy_name mine",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


COMMANDS_OF_PAGE = [line for block in blocks("sh") for line in block.strip().splitlines()]


def write_raw(folder: Path) -> None:
    """Pictures in which something moves as the actions say, in the layout of examples/raw_demos.py."""
    (folder / TASK).mkdir(parents=True)
    (folder / "words.txt").write_text(TASK.replace("_", " ") + "\n")
    for number in range(DEMOS):
        rng = np.random.default_rng(number)
        background = rng.integers(0, 120, (4, 4, 3), np.uint8).repeat(16, 0).repeat(16, 1)
        front = np.repeat(background[None], STEPS, 0)
        for t in range(STEPS):
            front[t, 20 + t : 30 + t, 10 + 2 * t : 20 + 2 * t] = 230
        action = rng.uniform(-0.02, 0.02, (STEPS, 6))
        opened = (np.arange(STEPS) < STEPS // 2).astype(np.float64)
        state = np.cumsum(np.pad(action, ((0, 0), (0, 2))), 0)
        state[:, 6], state[:, 7] = 0.04 * opened, -0.04 * opened
        np.savez(
            folder / TASK / f"{number}.npz",
            front_camera=front,
            hand_camera=front[:, ::-1],
            state=state,
            action=np.pad(action, ((0, 0), (0, 1))),
            action_scale=0.05,
            gripper_open=opened,
        )


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like a clone, with raw demonstrations in it."""
    folder = tmp_path_factory.mktemp("desk")
    for name in ("configs", "examples"):
        (folder / name).symlink_to(REPOSITORY / name)
    write_raw(folder / "my_demos")
    return folder


def call(desk: Path, command: str) -> str:
    for large, small in TINY.items():
        command = command.replace(large, small)
    words = shlex.split(command)
    program = {"python": [sys.executable], "invact": [sys.executable, "-m", "invact_vla.app.cli"]}
    done = subprocess.run(
        [*program[words[0]], *words[1:]],
        cwd=desk,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin", "HOME": str(desk),
             "OMP_NUM_THREADS": "1", "MUJOCO_GL": "egl"},
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def run(desk: Path, *beginnings: str) -> str:
    found = [c for c in COMMANDS_OF_PAGE if c.startswith(beginnings)]
    assert len(found) >= len(beginnings)
    return "".join(call(desk, command) for command in found)


def test_the_page_has_the_whole_way() -> None:
    programs = {" ".join(c.split()[:3]) for c in COMMANDS_OF_PAGE}
    for step in ("invact data check", "invact vla init", "invact vla plan", "invact vla posttrain",
                 "invact libero rollout", "invact libero report", "invact vla export"):  # fmt: skip
        assert step in programs
    assert len(blocks("python")) == 2


@pytest.mark.parametrize("command", [c for c in COMMANDS_OF_PAGE if c.startswith("invact")])
def test_commands_are_understood(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    name, rest = find_command(shlex.split(command)[1:])
    module, config, _ = COMMANDS[name]
    parse_config(getattr(importlib.import_module(module), str(config)), rest)


def test_both_conversions_hold_what_was_recorded(desk: Path) -> None:
    run(desk, "python examples")
    raw = np.load(desk / f"my_demos/{TASK}/0.npz")
    for name in ("hdf5", "lerobot"):
        data = open_dataset(DatasetConfig(path=desk / "runs/new" / name))
        assert len(data.episodes) == DEMOS and data.episodes[0].instruction == "put the mug away"
        numbers = data.numbers(0)
        assert np.allclose(numbers.actions[:, :6], raw["action"][:, :6] / 0.05, atol=1e-6)
        assert np.array_equal(numbers.actions[:, 6], raw["gripper_open"]), "1 open, 0 closed"
        assert numbers.state is not None and np.allclose(numbers.state, raw["state"], atol=1e-6)
        for camera, key in (("agentview", "front_camera"), ("wrist", "hand_camera")):
            error = np.abs(data.frames(0, camera).astype(int) - raw[key].astype(int))
            assert error.mean() < (0.1 if name == "hdf5" else 15), f"{name} {camera}: upright"
    with h5py.File(desk / f"runs/new/hdf5/{TASK}_demo.hdf5") as file:
        stored = file["data/demo_0/obs/agentview_rgb"][()]  # type: ignore[index]
    assert np.array_equal(stored[:, ::-1, ::-1], raw["front_camera"])
    said = run(desk, "invact data check")
    assert said.count("no findings") == 2, said


@pytest.mark.slow
def test_from_demonstrations_to_actions(
    desk: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    if not (desk / "runs/new/hdf5").is_dir():
        run(desk, "python examples")
    said = run(desk, "invact vla init", "invact vla plan")
    assert "posttrain: fits" in said and (desk / "runs/new/plan/plan.json").is_file()
    run(desk, "invact vla posttrain")
    config = json.loads((desk / "runs/new/policy/model/config.json").read_text())
    assert list(config["norm_stats"]) == ["my_task"]
    monkeypatch.chdir(desk)
    exec(blocks("python")[1], {})
    assert len(capsys.readouterr().out.split()) >= 7
    run(desk, "invact vla export")
    assert (desk / "runs/new/exported/README.md").is_file()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("robosuite") is None, reason="needs the libero extra")
def test_a_rollout_in_a_task_of_one_s_own(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (desk / "runs/new/policy/done.json").is_file():
        run(desk, "python examples", "invact vla init", "invact vla posttrain")
    monkeypatch.chdir(desk)
    exec(blocks("python")[0], {})
    run(desk, "invact libero")
    rows = [
        json.loads(r) for r in (desk / "runs/new/rollout/episodes.jsonl").read_text().splitlines()
    ]
    assert [row["outcome"] for row in rows] == ["failure"]
