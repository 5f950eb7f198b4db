"""Robot demonstrations as one shape, whatever file format they come in.

A reader opens a file or folder without reading pictures, lists its episodes, and gives the numbers
or the pictures of one episode when asked, so that resident memory does not grow with the data.

Axis letters: T steps, S numbers of the state, A numbers of an action, H W pixels.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class EpisodeInfo:
    """What is known of one demonstration without reading it.

    name: unique in its data set. task: the group that "per task" counts in (file stem, or the
    instruction). instruction: the task in words. length: steps T.
    """

    name: str
    task: str
    instruction: str
    length: int


@dataclass(frozen=True)
class EpisodeNumbers:
    """The numbers of one demonstration, in training convention (see `conventions.py`).

    actions: float64 (T, A), gripper 1 open and 0 closed where there is one. state: float32 (T, S), or
    None for data without one.
    """

    actions: np.ndarray
    state: np.ndarray | None


class RobotDataset(ABC):
    """A data set of demonstrations. `cameras` are the names that `frames` takes, such as "agentview"
    (third person) and "wrist". `action_mask`: which action dimensions are normalized (the gripper
    is not). `state_dim` is 0 where no state is stored."""

    episodes: tuple[EpisodeInfo, ...]
    cameras: tuple[str, ...]
    action_dim: int
    state_dim: int
    action_mask: tuple[bool, ...]

    @property
    @abstractmethod
    def key(self) -> str:
        """Hash that changes when the content does; cheap (names, sizes, times of files)."""

    @abstractmethod
    def numbers(self, index: int) -> EpisodeNumbers:
        """Actions and states of the episode at `index`. Raises UserError for damaged data."""

    @abstractmethod
    def frames(self, index: int, camera: str) -> np.ndarray:
        """uint8 (T, H, W, 3) RGB, upright, of the episode at `index`. UserError for an unknown camera
        (it names those there are) or damaged pictures."""
