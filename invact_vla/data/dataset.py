"""Robot demonstrations as one shape, whatever file format they come in.

A reader opens a file or folder without reading pictures, lists its episodes, and gives the numbers
or the pictures of one episode when asked, so that resident memory does not grow with the data.

Axis letters: T steps, S numbers of the state, A numbers of an action, H W pixels.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from invact_vla.core.errors import UserError
from invact_vla.data.conventions import GRIPPERS, ROTATIONS

logger = logging.getLogger(__name__)
KNOWN = {
    "format": ("auto", "hdf5", "lerobot", "rlds"),
    "gripper": GRIPPERS,
    "rotation": ("auto", *ROTATIONS),
    "action_range": ("auto", "unit", "any"),
}


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """A data set of demonstrations. All but `path` may stay as it is for LIBERO's own data."""

    path: Path = Path("runs/demos")  # HDF5 file or folder of them, LeRobot folder, or RLDS folder
    format: str = "auto"  # auto, hdf5, lerobot or rlds
    # where the pictures lie, e.g. {agentview: observation.images.front}; none: the format's own
    cameras: dict[str, str] = field(default_factory=dict)
    # keys of the robot's state, put together in this order; none: the format's own
    state: tuple[str, ...] = ()
    action: str | None = None  # key of the actions; null: the format's own
    instruction: str | None = None  # the task in words, where the data do not say it
    # auto: judged over all data; open_is_minus_one (-1 open, +1 closed: LIBERO), open_is_one,
    # open_is_zero (0 open, 1 closed), none (the last number is no gripper)
    gripper: str = "auto"
    # what makes stored pictures upright: none, rotate180, flip or mirror; auto: the format's own
    rotation: str = "auto"
    # unit: actions far outside [-1, 1] are refused; any: not; auto: unit for LIBERO's 7 numbers
    action_range: str = "auto"
    max_demos: int | None = None  # demonstrations read per task; null: all

    def __post_init__(self) -> None:
        for name, known in KNOWN.items():
            if getattr(self, name) not in known:
                value = getattr(self, name)
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
        if self.max_demos is not None and self.max_demos < 1:
            raise ValueError(f"max_demos must be at least 1, got {self.max_demos}")


@dataclass(frozen=True)
class EpisodeInfo:
    """What is known of one demonstration without reading it.

    name: unique in its data set. task: the group that "per task" counts in (file stem, or the
    instruction). instruction: the task in words. length: steps T."""

    name: str
    task: str
    instruction: str
    length: int


@dataclass(frozen=True)
class EpisodeNumbers:
    """The numbers of one demonstration, in training convention (see `conventions.py`).

    actions: float64 (T, A), gripper 1 open and 0 closed where there is one. state: float32 (T, S), or
    None for data without one. executed: bool (T,), whether this action was executed, not that of a
    policy which took turns with whoever is learned from; None: all were."""

    actions: np.ndarray
    state: np.ndarray | None
    executed: np.ndarray | None = None

    def starts(self, chunk: int) -> np.ndarray:
        """Steps, int (N,), from which a chunk of actions can be learned: it is whole, and all but its
        last were executed, so that each is the answer to what the ones before it led to."""
        steps = np.arange(max(len(self.actions) - chunk + 1, 0))
        if self.executed is None:
            return steps
        count = np.concatenate([[0], np.cumsum(self.executed)])
        return steps[count[steps + chunk - 1] - count[steps] == chunk - 1]


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


@dataclass(frozen=True)
class RobotEpisode:
    """One demonstration of T steps, all of it in memory, for writers.

    agentview: uint8 (T, H, W, 3) upright. wrist: the same or None. state: float32 (T, S). actions:
    float64 (T, A), the gripper 1 open, 0 closed."""

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
        none = np.zeros((len(numbers.actions), 0), np.float32)
        yield RobotEpisode(
            episode.name,
            episode.instruction,
            dataset.frames(index, "agentview"),
            dataset.frames(index, "wrist") if wrist else None,
            none if numbers.state is None else numbers.state,
            numbers.actions,
        )


def long_enough(dataset: RobotDataset, chunk: int) -> list[int]:
    """Places of the demonstrations with at least `chunk` steps; logs how many are not.

    Raises UserError if none remains."""
    lengths = [episode.length for episode in dataset.episodes]
    kept = [i for i, length in enumerate(lengths) if length >= chunk]
    if not kept:
        raise UserError(
            f"no demonstration has {chunk} steps, the longest of {len(lengths)} has "
            f"{max(lengths, default=0)}: lower --chunk or give longer ones"
        )
    short = [e.name for e in dataset.episodes if e.length < chunk]
    if short:
        logger.warning(
            "left out %d of %d demonstrations, shorter than the chunk of %d steps: %s",
            len(short), len(lengths), chunk, ", ".join(short[:5]) + (" ..." if short[5:] else ""),
        )  # fmt: skip
    return kept


def require(dataset: RobotDataset, cameras: Sequence[str], state: bool) -> None:
    """UserError that names what a data set lacks of what is asked for."""
    missing = [camera for camera in cameras if camera not in dataset.cameras]
    if missing:
        raise UserError(
            f"no {' and no '.join(missing)} pictures in the demonstrations, which have "
            f"{list(dataset.cameras)}: say where they lie, --data.cameras '{{{missing[0]}: KEY}}', "
            "or do without"
        )
    if state and not dataset.state_dim:
        lack = getattr(dataset, "lacking_state", "")
        raise UserError(
            f"no state of the robot in the demonstrations{lack and ' (' + lack + ')'}: name its "
            "keys with --data.state, or train with proprio false"
        )
