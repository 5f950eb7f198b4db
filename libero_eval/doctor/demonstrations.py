"""Demonstrations as the doctor needs them: few frames, all actions, and the scene they began in."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from invact_vla.core.errors import UserError
from invact_vla.core.limits import short
from invact_vla.data.hdf5_file import open_hdf5, read_array
from invact_vla.data.instructions import choose_instruction, instruction_of, stored_instruction
from libero_eval.env.tasks import find_task, task_names
from libero_eval.expert.recording import DATASET_NAMES

if TYPE_CHECKING:
    from libero_eval.env.sim import LiberoSim

FILES = 4  # read at most
FRAMES = 24  # read of each demonstration, evenly spread
PER_FILE = 3  # demonstrations whose frames and states are read
STATISTICS_DEMOS = 200  # a file, whose actions are read


class NoDemonstrations(UserError):
    """There are none, and none can be made: what needs them cannot be asked."""


@dataclass(frozen=True, kw_only=True)
class Demonstration:
    """One demonstration of T steps, F of whose frames were read.

    task_id: None for a task that the suite does not have. actions: float64 (T, 7) to learn from, env
    convention. executed: the same with what noise was added. fingers: (T,) distance of the fingers, m,
    and ee_pos: (T, 3), m, or None where the data do not hold them. times: int (F,), steps of
    the frames. frames: camera -> uint8 (F, H, W, 3) as stored. robot: float32 (F, 8), the state of
    Observation. states: float64 (F, D), or None. start: float64 (D,), or None. layout_seed,
    init_index: how the scene was made, where the file says so. poses: fixtures (N, 7), or None.
    """

    suite: str
    task_id: int | None
    name: str
    instruction: str
    actions: np.ndarray
    executed: np.ndarray
    fingers: np.ndarray | None
    ee_pos: np.ndarray | None
    times: np.ndarray
    frames: dict[str, np.ndarray]
    robot: np.ndarray
    states: np.ndarray | None
    start: np.ndarray | None
    layout_seed: int | None
    init_index: int | None
    poses: np.ndarray | None

    @property
    def scene(self) -> str:
        """E.g. LIVING_ROOM_SCENE2; the task itself where names have no scene."""
        if self.task_id is None:
            return self.instruction
        words = task_names(self.suite)[self.task_id].split("_")
        last = next((i for i, word in enumerate(words) if word.startswith("SCENE")), len(words) - 1)
        return "_".join(words[: last + 1])


@dataclass(frozen=True, kw_only=True)
class Demonstrations:
    """What was read. all_actions: float64 (N, 7) of many demonstrations, env convention. longest:
    steps of the longest of them. scripted: made by the doctor itself, so not trained on."""

    demos: tuple[Demonstration, ...]
    all_actions: np.ndarray
    longest: int
    scripted: bool

    @property
    def instructions(self) -> list[str]:
        """Different ones, in order."""
        return list(dict.fromkeys(d.instruction for d in self.demos))


def has_libero_layout(path: Path) -> bool:
    """Whether a file is as LIBERO itself writes it, all that the doctor can ask of it included."""
    if path.suffix != ".hdf5":
        return False
    try:
        with open_hdf5(path) as file:
            data: Any = file["data"]
            convention = data.attrs.get("macros_image_convention", "opengl")
            groups = [data[name] for name in data if re.fullmatch(r"demo_\d+", name)]
            senses = ("agentview_rgb", "ee_pos", "ee_ori", "gripper_states")
            return bool(
                groups
                and len(groups) == len(data)
                and convention in ("opengl", b"opengl")
                and all(name in groups[0]["obs"] for name in senses)
                and min(read_array(group["actions"])[:, 6].min() for group in groups[:PER_FILE]) < 0
            )
    except UserError:
        return False


def read_file(path: Path, suite: str) -> tuple[list[Demonstration], list[np.ndarray]]:
    try:
        with open_hdf5(path) as file:
            data: Any = file["data"]
            names = sorted(data, key=lambda n: int(n.split("_")[1]))[:STATISTICS_DEMOS]
            demos = [_read(path, data[n], n, suite) for n in names[:PER_FILE]]
            return demos, [_learned(data[n]) for n in names]
    except UserError as error:
        raise UserError(
            f"{path} is not a LIBERO demonstration file or is damaged ({short(error)}): expected "
            "data/demo_<i>/{actions, states, obs/...}"
        ) from error


def _learned(group: Any) -> np.ndarray:
    return read_array(group.get("expert_actions", group["actions"])).astype(np.float64)


def _read(path: Path, group: Any, name: str, suite: str) -> Demonstration:
    task = path.stem.removesuffix("_demo")
    stored = stored_instruction(group.parent.attrs)
    words = choose_instruction(path, stored) or instruction_of(path)
    obs, attributes = group["obs"], group.attrs
    learned = _learned(group)
    executed = read_array(group.get("executed_actions", group["actions"])).astype(np.float64)
    times = np.unique(np.linspace(0, len(learned) - 1, FRAMES).astype(int))
    parts = [read_array(obs[n]) for n in ("ee_pos", "ee_ori", "gripper_states")]
    states = group.get("states")
    return Demonstration(
        suite=suite,
        task_id=find_task(suite, task, words),
        name=f"{task}/{name}",
        instruction=words,
        actions=learned,
        executed=executed,
        fingers=parts[2][:, 0] - parts[2][:, 1],
        ee_pos=parts[0],
        times=times,
        frames={c: obs[n][times] for c, n in DATASET_NAMES.items() if n in obs},
        robot=np.concatenate(parts, axis=1)[times].astype(np.float32),
        states=None if states is None else states[times],
        start=None if states is None else states[0],
        layout_seed=_number(attributes, "layout_seed"),
        init_index=_number(attributes, "init_index"),
        poses=np.array(attributes["fixture_poses"]) if "fixture_poses" in attributes else None,
    )


def _number(attributes: Any, name: str) -> int | None:
    return int(attributes[name]) if name in attributes else None


def restore(sim: "LiberoSim", demo: Demonstration, state: np.ndarray, settle: bool = False) -> None:
    """Place the simulator in a stored state, with the demonstration's fixtures where the file says
    how they stood, else with those of the first episode (they differ by up to a centimeter)."""
    from libero_eval.env import scene

    if demo.layout_seed is not None:
        sim.reset_random(demo.layout_seed, settle=False)
    else:
        sim.reset(demo.init_index or 0, settle=False)
    if demo.poses is not None and demo.poses.shape == scene.fixture_poses(sim.env).shape:
        scene.set_fixture_poses(sim.env, demo.poses)
    sim.set_state(state, settle=settle)


def make_demonstrations(out: Path, suite: str, pack: Any, image_size: int) -> Path:
    """Have the scripted expert make one demonstration of each of two tasks; the folder."""
    from libero_eval.expert.demos import DemosConfig
    from libero_eval.expert.demos import main as make_demos
    from libero_eval.expert.recipes import RECIPES

    tasks = tuple(sorted(task for s, task in RECIPES if s == suite)[:2])
    if not tasks:
        raise NoDemonstrations(
            f"no demonstrations of {suite} can be made here: give them as --demos"
        )
    return make_demos(
        DemosConfig(
            out=out,
            suite=suite,
            tasks=tasks,
            n_per_task=1,
            assets=pack,
            image_size=image_size,
            wrist=True,
            workers=0,
            overwrite=True,
        )
    )
