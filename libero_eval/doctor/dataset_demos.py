"""Demonstrations of any format as the doctor needs them, through the readers of post-training.

Letters: T steps, F of them whose frames are read.
"""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import draccus
import numpy as np

from invact_vla.core.errors import UserError
from invact_vla.data.conventions import LIBERO_ACTION_DIM, LIBERO_STATE_DIM, to_libero_action
from invact_vla.data.dataset import DatasetConfig, RobotDataset
from invact_vla.data.readers import open_dataset
from libero_eval.doctor.demonstrations import (
    FILES,
    FRAMES,
    PER_FILE,
    STATISTICS_DEMOS,
    Demonstration,
    Demonstrations,
    has_libero_layout,
    read_file,
)
from libero_eval.env.tasks import find_task


def read_dataset(
    source: Path, suite: str, options: Mapping[str, Any] | None = None
) -> Demonstrations:
    """Frames of the first episodes of the first tasks, and the actions of many. Raises UserError for
    anything unreadable, and for actions that are not LIBERO's seven numbers.

    options: fields of DatasetConfig, as a post-training's `data` has them.
    """
    config = draccus.decode(DatasetConfig, {**(options or {}), "path": str(source)})
    data = open_dataset(config)
    if data.action_dim != LIBERO_ACTION_DIM:
        raise UserError(
            f"{source}: actions of {data.action_dim} numbers, LIBERO's robot takes {LIBERO_ACTION_DIM}"
        )
    by_task: dict[str, list[int]] = defaultdict(list)
    for index, episode in enumerate(data.episodes):
        by_task[episode.task].append(index)
    shown = [i for group in list(by_task.values())[:FILES] for i in group[:PER_FILE]]
    counted = [
        i for group in by_task.values() for i in group[: STATISTICS_DEMOS // len(by_task) + 1]
    ]
    indices = sorted({*shown, *counted})
    actions = {i: to_libero_action(data.numbers(i).actions).astype(np.float64) for i in indices}
    return Demonstrations(
        demos=tuple(_demonstration(data, i, actions[i], suite) for i in shown),
        all_actions=np.concatenate(list(actions.values())),
        longest=max(len(values) for values in actions.values()),
        scripted=False,
    )


def _demonstration(
    data: RobotDataset, index: int, actions: np.ndarray, suite: str
) -> Demonstration:
    episode, state = data.episodes[index], data.numbers(index).state
    times = np.unique(np.linspace(0, len(actions) - 1, FRAMES).astype(int))
    if state is not None and state.shape[1] != LIBERO_STATE_DIM:
        state = None  # its numbers are not known
    frames = {camera: data.frames(index, camera)[times] for camera in data.cameras}
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
        robot=state[times]
        if state is not None
        else np.zeros((len(times), LIBERO_STATE_DIM), np.float32),
        states=None,
        start=None,
        layout_seed=None,
        init_index=None,
        poses=None,
    )


def read_demonstrations(source: Path, suite: str, scripted: bool = False) -> Demonstrations:
    """Read a file or a folder: LIBERO's HDF5, or what else post-training reads, as LeRobot's. Raises
    UserError for anything unreadable."""
    if not source.exists():
        raise UserError(f"no demonstrations {source}: expected a file or a folder of them")
    files = sorted(source.glob("*.hdf5")) if source.is_dir() else [source]
    if not files or not all(has_libero_layout(path) for path in files[:FILES]):
        return read_dataset(source, suite)
    demos: list[Demonstration] = []
    actions: list[np.ndarray] = []
    for path in files[:FILES]:
        found, of_file = read_file(path, suite)
        demos += found
        actions += of_file
    longest = max(len(a) for a in actions)
    return Demonstrations(
        demos=tuple(demos), all_actions=np.concatenate(actions), longest=longest, scripted=scripted
    )
