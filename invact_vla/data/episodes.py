"""Whole demonstrations in memory, one at a time, for writers."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from invact_vla.data.dataset import RobotDataset


@dataclass(frozen=True)
class RobotEpisode:
    """One demonstration of T steps, all of it in memory.

    agentview: uint8 (T, H, W, 3) upright. wrist: the same or None. state: float32 (T, S). actions:
    float64 (T, A), the gripper 1 open, 0 closed.
    """

    name: str
    instruction: str
    agentview: np.ndarray
    wrist: np.ndarray | None
    state: np.ndarray
    actions: np.ndarray


def whole_episodes(dataset: RobotDataset, wrist: bool = False) -> Iterator[RobotEpisode]:
    """All demonstrations, one by one."""
    for index, episode in enumerate(dataset.episodes):
        numbers = dataset.numbers(index)
        state = numbers.state
        if state is None:
            state = np.zeros((len(numbers.actions), 0), np.float32)
        yield RobotEpisode(
            episode.name,
            episode.instruction,
            dataset.frames(index, "agentview"),
            dataset.frames(index, "wrist") if wrist else None,
            state,
            numbers.actions,
        )
