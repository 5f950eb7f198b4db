"""Demonstrations of any format as the doctor needs them: few frames, all actions, and the scene they
began in.

Letters: T steps, F of them whose frames are read.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import draccus
import numpy as np

from invact_vla.core.errors import UserError
from invact_vla.core.limits import short
from invact_vla.data.conventions import LIBERO_ACTION_DIM, LIBERO_STATE_DIM, to_libero_action
from invact_vla.data.dataset import DatasetConfig, RobotDataset
from invact_vla.data.hdf5_file import open_hdf5, read_array
from invact_vla.data.instructions import (
    choose_instruction,
    instruction_of,
    scene_of,
    stored_instruction,
)
from invact_vla.data.readers import open_dataset
from libero_eval.demos.recording import DATASET_NAMES
from libero_eval.env.tasks import find_task, task_names

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
    """One demonstration; None where the data do not hold something."""

    suite: str
    task_id: int | None  # None for a task that the suite does not have
    name: str
    instruction: str
    actions: np.ndarray  # float64 (T, 7) to learn from, env convention
    executed: np.ndarray  # the same with what noise was added
    fingers: np.ndarray | None  # (T,) distance of the fingers, m
    ee_pos: np.ndarray | None  # (T, 3), m
    times: np.ndarray  # int (F,), steps of the frames
    frames: dict[str, np.ndarray]  # camera -> uint8 (F, H, W, 3) as stored
    robot: np.ndarray  # float32 (F, 8), the state of Observation
    states: np.ndarray | None = None  # float64 (F, D)
    start: np.ndarray | None = None  # float64 (D,)
    layout_seed: int | None = None  # how the scene was made
    init_index: int | None = None
    poses: np.ndarray | None = None  # of the fixtures, (N, 7)

    @property
    def scene(self) -> str:
        """E.g. LIVING_ROOM_SCENE2; the task itself where names have no scene."""
        if self.task_id is None:
            return self.instruction
        name = task_names(self.suite)[self.task_id]
        return scene_of(name) or name


@dataclass(frozen=True, kw_only=True)
class Demonstrations:
    """What was read."""

    demos: tuple[Demonstration, ...]
    all_actions: np.ndarray  # float64 (N, 7) of many demonstrations, env convention
    longest: int  # steps of the longest of them
    scripted: bool  # made by the doctor itself, so not trained on

    @property
    def instructions(self) -> list[str]:
        """Different ones, in order."""
        return list(dict.fromkeys(d.instruction for d in self.demos))


def _gathered(
    demos: list[Demonstration], actions: list[np.ndarray], scripted: bool = False
) -> Demonstrations:
    """UserError for numbers that are not finite, which would make every comparison say yes."""
    together = np.concatenate(actions)
    for demo in demos:
        parts = demo.actions, demo.executed, demo.fingers, demo.ee_pos, demo.robot, demo.states
        if not all(part is None or np.isfinite(part).all() for part in parts):
            raise UserError(f"{demo.name} holds NaN or infinity: repair it, or leave it out")
    if not np.isfinite(together).all():
        raise UserError("demonstrations hold NaN or infinity: `invact data check` says where")
    return Demonstrations(
        demos=tuple(demos), all_actions=together, longest=max(map(len, actions)), scripted=scripted
    )


def _spread(length: int) -> np.ndarray:
    """The steps whose frames are read, int (F,)."""
    return np.unique(np.linspace(0, length - 1, FRAMES).astype(int))


def read_demonstrations(source: Path, suite: str, scripted: bool = False) -> Demonstrations:
    """Read a file or a folder: LIBERO's HDF5, or what else post-training reads, as LeRobot's. Raises
    UserError for anything unreadable."""
    if not source.exists():
        raise UserError(f"no demonstrations {source}: expected a file or a folder of them")
    files = sorted(source.glob("*.hdf5")) if source.is_dir() else [source]
    if not files or not all(_has_libero_layout(path) for path in files[:FILES]):
        return read_dataset(source, suite)
    demos: list[Demonstration] = []
    actions: list[np.ndarray] = []
    for path in files[:FILES]:
        try:
            with open_hdf5(path) as file:
                data: Any = file["data"]
                names = sorted(data, key=lambda n: int(n.split("_")[1]))[:STATISTICS_DEMOS]
                demos += [_read(path, data[n], n, suite) for n in names[:PER_FILE]]
                actions += [_learned(data[n]) for n in names]
        except UserError as error:
            raise UserError(
                f"{path} is not a LIBERO demonstration file or is damaged ({short(error)}): expected "
                "data/demo_<i>/{actions, states, obs/...}"
            ) from error
    return _gathered(demos, actions, scripted)


def read_dataset(
    source: Path, suite: str, options: Mapping[str, Any] | None = None
) -> Demonstrations:
    """Read through the readers of post-training: frames of the first episodes of the first tasks, and
    the actions of many. Raises UserError for anything unreadable, and for actions that are not LIBERO's
    seven numbers.

    options: fields of DatasetConfig, as a post-training's `data` has them.
    """
    data = open_dataset(draccus.decode(DatasetConfig, {**(options or {}), "path": str(source)}))
    if data.action_dim != LIBERO_ACTION_DIM:
        raise UserError(
            f"{source}: actions of {data.action_dim} numbers, LIBERO's robot takes {LIBERO_ACTION_DIM}"
        )
    by_task: dict[str, list[int]] = defaultdict(list)
    for index, episode in enumerate(data.episodes):
        by_task[episode.task].append(index)
    groups, counted = list(by_task.values()), STATISTICS_DEMOS // len(by_task) + 1
    shown = [i for group in groups[:FILES] for i in group[:PER_FILE]]
    indices = sorted({*shown, *(i for group in groups for i in group[:counted])})
    actions = {i: to_libero_action(data.numbers(i).actions).astype(np.float64) for i in indices}
    demos = [_demonstration(data, i, actions[i], suite) for i in shown]
    return _gathered(demos, list(actions.values()))


def _demonstration(
    data: RobotDataset, index: int, actions: np.ndarray, suite: str
) -> Demonstration:
    episode, state, times = data.episodes[index], data.numbers(index).state, _spread(len(actions))
    if state is not None and state.shape[1] != LIBERO_STATE_DIM:
        state = None  # its numbers are not known
    frames = {camera: data.frames(index, camera)[times] for camera in data.cameras}
    nothing = np.zeros((len(times), LIBERO_STATE_DIM), np.float32)
    return Demonstration(
        suite=suite,
        task_id=find_task(suite, episode.task, episode.instruction),
        name=episode.name,
        instruction=episode.instruction,
        actions=actions,
        executed=actions,
        fingers=state[:, 6] - state[:, 7] if state is not None else None,
        ee_pos=state[:, :3] if state is not None else None,
        times=times,
        frames={camera: f[:, ::-1, ::-1] for camera, f in frames.items()},  # as LIBERO stores them
        robot=state[times] if state is not None else nothing,
    )


def _has_libero_layout(path: Path) -> bool:
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


def _learned(group: Any) -> np.ndarray:
    return read_array(group.get("expert_actions", group["actions"])).astype(np.float64)


def _read(path: Path, group: Any, name: str, suite: str) -> Demonstration:
    task = path.stem.removesuffix("_demo")
    words = choose_instruction(path, stored_instruction(group.parent.attrs)) or instruction_of(path)
    obs, attributes = group["obs"], group.attrs
    learned, states = _learned(group), group.get("states")
    times = _spread(len(learned))
    parts = [read_array(obs[n]) for n in ("ee_pos", "ee_ori", "gripper_states")]
    where = {n: int(attributes[n]) for n in ("layout_seed", "init_index") if n in attributes}
    return Demonstration(
        suite=suite,
        task_id=find_task(suite, task, words),
        name=f"{task}/{name}",
        instruction=words,
        actions=learned,
        executed=read_array(group.get("executed_actions", group["actions"])).astype(np.float64),
        fingers=parts[2][:, 0] - parts[2][:, 1],
        ee_pos=parts[0],
        times=times,
        frames={c: obs[n][times] for c, n in DATASET_NAMES.items() if n in obs},
        robot=np.concatenate(parts, axis=1)[times].astype(np.float32),
        states=None if states is None else states[times],
        start=None if states is None else states[0],
        poses=np.array(attributes["fixture_poses"]) if "fixture_poses" in attributes else None,
        **where,
    )


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
    from libero_eval.demos.command import DemosConfig, main
    from libero_eval.expert.recipes import RECIPES

    tasks = tuple(sorted(task for s, task in RECIPES if s == suite)[:2])
    if not tasks:
        raise NoDemonstrations(
            f"no demonstrations of {suite} can be made here: give them as --demos"
        )
    return main(
        DemosConfig(
            out=out, suite=suite, tasks=tasks, n_per_task=1, assets=pack, image_size=image_size,
            wrist=True, workers=0, overwrite=True,
        )
    )  # fmt: skip
