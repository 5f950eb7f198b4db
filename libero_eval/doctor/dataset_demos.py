"""Demonstrations of any format as the doctor needs them, through the readers of post-training.

Letters: T steps, F of them whose frames are read.
"""

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from invact_vla.errors import UserError
from libero_eval.doctor.demonstrations import (
    FILES,
    FRAMES,
    PER_FILE,
    STATISTICS_DEMOS,
    Demonstration,
    Demonstrations,
)
from libero_eval.tasks import find_task

if TYPE_CHECKING:
    from invact_vla.data.dataset import RobotDataset

ARM_ACTIONS = 7  # numbers of LIBERO's actions


def read_dataset(source: Path, suite: str) -> Demonstrations:
    """Frames of the first episodes of the first tasks, and the actions of many. Raises UserError for
    anything unreadable, and for actions that are not LIBERO's seven numbers."""
    data = open_demonstrations(source)
    if data.action_dim != ARM_ACTIONS:
        raise UserError(
            f"{source}: actions of {data.action_dim} numbers, LIBERO's robot takes {ARM_ACTIONS}"
        )
    by_task: dict[str, list[int]] = defaultdict(list)
    for index, episode in enumerate(data.episodes):
        by_task[episode.task].append(index)
    shown = [i for group in list(by_task.values())[:FILES] for i in group[:PER_FILE]]
    counted = [
        i for group in by_task.values() for i in group[: STATISTICS_DEMOS // len(by_task) + 1]
    ]
    actions = {i: to_libero(data.numbers(i).actions) for i in sorted({*shown, *counted})}
    return Demonstrations(
        demos=tuple(_demonstration(data, i, actions[i], suite) for i in shown),
        all_actions=np.concatenate(list(actions.values())),
        longest=max(len(values) for values in actions.values()),
        scripted=False,
    )


def to_libero(actions: np.ndarray) -> np.ndarray:
    """(T, 7) in training convention (gripper 1 open, 0 closed) -> LIBERO's own (-1 open, +1 close)."""
    values = actions.copy()
    values[:, 6] = 1 - 2 * values[:, 6]
    return values


def _demonstration(
    data: "RobotDataset", index: int, actions: np.ndarray, suite: str
) -> Demonstration:
    episode, state = data.episodes[index], data.numbers(index).state
    times = np.unique(np.linspace(0, len(actions) - 1, FRAMES).astype(int))
    is_libero = state is not None and state.shape[1] == 8
    frames = {camera: data.frames(index, camera)[times] for camera in data.cameras}
    return Demonstration(
        suite=suite,
        task_id=find_task(suite, episode.task, episode.instruction),
        name=episode.name,
        instruction=episode.instruction,
        actions=actions,
        executed=actions,
        fingers=state[:, 6] - state[:, 7] if state is not None and is_libero else None,
        ee_pos=state[:, :3] if state is not None and is_libero else None,
        times=times,
        frames={camera: f[:, ::-1, ::-1] for camera, f in frames.items()},  # as LIBERO stores them
        robot=state[times]
        if state is not None and is_libero
        else np.zeros((len(times), 8), np.float32),
        states=None,
        start=None,
        layout_seed=None,
        init_index=None,
        poses=None,
    )


def open_demonstrations(source: Path) -> "RobotDataset":
    """A data set of any format that post-training reads."""
    from invact_vla.data.dataset_config import DatasetConfig
    from invact_vla.data.open_dataset import open_dataset

    return open_dataset(DatasetConfig(path=source))
