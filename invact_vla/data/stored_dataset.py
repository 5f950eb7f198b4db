"""What all readers share: stored numbers and pictures -> checked, in training convention.

A reader tells what is stored (`stored_actions`, `stored_state`, `stored_frames`); this class judges
the gripper over all demonstrations, checks, converts and turns.
"""

import logging
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from invact_vla.core.errors import UserError
from invact_vla.core.files import hash_json
from invact_vla.data.conventions import (
    LIBERO_ACTION_DIM,
    Gripper,
    GripperTrack,
    finger_distance,
    judge_gripper,
    normalization_mask,
    rotate,
)
from invact_vla.data.dataset import EpisodeInfo, EpisodeNumbers, RobotDataset
from invact_vla.data.dataset_config import DatasetConfig
from invact_vla.data.validate import (
    check_action_range,
    check_finite,
    check_lengths,
    picture_fault,
    to_uint8,
)

logger = logging.getLogger(__name__)


class StoredDataset(RobotDataset):
    """A reader. Subclasses set, before `_select`: `all_episodes`, `camera_keys`, `action_dim`,
    `state_dim`, `lacking_state` (words), `format_name`; and give what is stored.

    Places count in `episodes`, the first `max_demos` of each task; `all_episodes` are all there are.
    """

    format_name: str
    all_episodes: tuple[EpisodeInfo, ...]
    camera_keys: dict[str, str]
    lacking_state: str = ""
    fps: float | None = None  # steps per second, where the data say it
    action_names: tuple[str, ...] | None = None

    def __init__(self, config: DatasetConfig) -> None:
        self.config = config

    @abstractmethod
    def stored_actions(self, place: int) -> np.ndarray:
        """(T, A) as stored, of the demonstration at a place in `all_episodes`."""

    @abstractmethod
    def stored_state(self, place: int) -> np.ndarray | None:
        """(T, S) as stored, or None where there is none."""

    @abstractmethod
    def stored_frames(self, place: int, camera: str) -> np.ndarray:
        """(T, H, W, 3) as stored, of any number type."""

    def stored_rotation(self, place: int) -> str:
        """What makes the pictures upright, one of ROTATIONS."""
        return "none"

    def _choose_state(
        self, where: str, known: Any, listed: Any, usual: Sequence[tuple[str, ...]]
    ) -> tuple[str, ...]:
        """The keys of the state: those asked for (UserError where one is not in the data), else the
        first usual ones that are all known, else (). listed: the keys there are, for the message."""
        for key in self.config.state:
            if key not in known:
                raise UserError(f"{where}: no {key}, it has {listed}: correct --data.state")
        found = next((keys for keys in usual if all(key in known for key in keys)), ())
        return tuple(self.config.state) or found

    def _select(self) -> None:
        """Choose `episodes` among all, after the reader has listed them."""
        if not self.all_episodes:
            raise UserError(f"{self.config.path}: no demonstrations in it")
        self.places = first_of_each_task(self.all_episodes, self.config.max_demos)
        self.episodes = tuple(self.all_episodes[i] for i in self.places)
        self.cameras = tuple(self.camera_keys)
        self.action_mask = normalization_mask(self.action_dim, self.has_gripper)
        self._complained: set[str] = set()
        stamps = [(name, p.stat().st_size, p.stat().st_mtime_ns) for name, p in self.source_files()]
        self._key = hash_json([stamps, self.reading_key])

    @abstractmethod
    def source_files(self) -> list[tuple[str, Path]]:
        """Names and paths of the files that the data come from, in a fixed order."""

    def locate(self, place: int) -> tuple[Path, str]:
        """Where a demonstration of `all_episodes` is: the path to open, and its name there."""
        return Path(self.config.path), self.all_episodes[place].name

    def episode_files(self, place: int, camera: str) -> list[Path]:
        """The files that the pictures of a demonstration of `all_episodes` come from."""
        return [path for _, path in self.source_files()]

    @property
    def key(self) -> str:
        return self._key

    @property
    def reading_key(self) -> list[Any]:
        """What of the options changes what is read; a part of every `key`."""
        c = self.config
        options = [c.cameras, c.state, c.action, c.instruction, c.gripper, c.rotation, c.max_demos]
        return [self.format_name, *options]

    @property
    def has_gripper(self) -> bool:
        """Whether the last action dimension is one."""
        if self.config.gripper != "auto":
            return self.config.gripper != "none"
        if self.action_names is not None:
            return "grip" in self.action_names[-1].lower()
        return self.action_dim == LIBERO_ACTION_DIM

    @cached_property
    def gripper(self) -> Gripper | None:
        """The convention of the stored gripper, judged over the demonstrations that are read, and over
        the others too where those do not tell; None without a gripper."""
        if not self.has_gripper:
            return None
        tracks = [self.track(place) for place in self.places]
        try:
            return judge_gripper(tracks, self.config.gripper, str(self.config.path))
        except UserError:
            others = sorted(set(range(len(self.all_episodes))) - set(self.places))
            if not others:
                raise
        tracks += [self.track(place) for place in others]
        return judge_gripper(tracks, self.config.gripper, str(self.config.path))

    def track(self, place: int) -> GripperTrack:
        """What the gripper's convention is judged by."""
        name = self.all_episodes[place].name
        commands = self._checked_actions(place)[:, -1]
        state = self.stored_state(place)
        fingers = finger_distance(state)
        if fingers is not None and len(fingers) != len(commands):
            fingers = None
        return GripperTrack(name, commands, fingers)

    def _checked_actions(self, place: int) -> np.ndarray:
        where = self.where(place)
        actions = np.asarray(self.stored_actions(place), np.float64)
        if actions.ndim != 2 or actions.shape[1] != self.action_dim:
            raise UserError(
                f"{where}: actions of shape {actions.shape}, expected (steps, {self.action_dim}) as "
                "in the first demonstration"
            )
        check_lengths(where, {"actions": len(actions)})
        check_finite(where, "action", actions)
        return actions

    def where(self, place: int) -> str:
        """The demonstration's name, for messages."""
        return f"{self.config.path}, {self.all_episodes[place].name}"

    def checked_numbers(self, place: int) -> EpisodeNumbers:
        """As stored, but checked: the gripper is in the data's own convention."""
        where = self.where(place)
        actions, state = self._checked_actions(place), self.stored_state(place)
        lengths = {"actions": len(actions)}
        if state is not None:
            state = np.asarray(state, np.float32).reshape(len(state), -1)
            check_finite(where, "state", state)
            lengths["state"] = len(state)
        check_lengths(where, lengths)
        check_action_range(where, actions, self.config.action_range, self.has_gripper)
        return EpisodeNumbers(actions, state)

    def numbers(self, index: int) -> EpisodeNumbers:
        stored = self.checked_numbers(self.places[index])
        actions = stored.actions.copy()
        if self.gripper is not None:
            actions[:, -1] = self.gripper.to_training(actions[:, -1])
        return EpisodeNumbers(actions, stored.state)

    def frames(self, index: int, camera: str) -> np.ndarray:
        if camera not in self.camera_keys:
            raise UserError(
                f"{self.config.path}: no camera {camera!r}, it has {list(self.cameras)}"
            )
        place = self.places[index]
        frames = self.upright_frames(place, camera)
        self._complain(camera, f"{self.where(place)}, {camera}", frames)
        return frames

    def upright_frames(self, place: int, camera: str) -> np.ndarray:
        """uint8 (T, H, W, 3), upright, as many as there are actions."""
        where = f"{self.where(place)}, {camera}"
        stored = self.stored_frames(place, camera)
        lengths = {"actions": self.all_episodes[place].length, f"{camera} pictures": len(stored)}
        check_lengths(self.where(place), lengths)
        return rotate(to_uint8(where, stored), self.rotation(place))

    def rotation(self, place: int) -> str:
        """What is done to the stored pictures, one of ROTATIONS."""
        chosen = self.config.rotation
        return self.stored_rotation(place) if chosen == "auto" else chosen

    def _complain(self, camera: str, where: str, frames: np.ndarray) -> None:
        """Log, once a camera, that pictures show nothing."""
        fault = None if camera in self._complained else picture_fault(frames)
        if fault is not None:
            self._complained.add(camera)
            logger.warning("%s: %s", where, fault)


def first_of_each_task(episodes: Sequence[EpisodeInfo], limit: int | None) -> list[int]:
    """Places of the first `limit` demonstrations of each task, in order; of all if it is None."""
    counts: dict[str, int] = {}
    places = []
    for place, episode in enumerate(episodes):
        counts[episode.task] = counts.get(episode.task, 0) + 1
        if limit is None or counts[episode.task] <= limit:
            places.append(place)
    return places
