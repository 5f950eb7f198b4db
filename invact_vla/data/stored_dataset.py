"""What all readers share: stored numbers and pictures -> checked, in training convention.

A reader tells what is stored (`stored_actions`, `stored_state`, `stored_frames`); this class judges
the gripper over all demonstrations, checks (by the same rules in training and in `invact data check`),
converts and turns.

Axis letters: T steps, A numbers of an action, S of a state, H W pixels.
"""

import logging
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from invact_vla.core.errors import UserError
from invact_vla.core.files import hash_json
from invact_vla.data.conventions import (
    FAR_BELOW_UNIT,
    FAR_FROM_UNIT,
    LIBERO_ACTION_DIM,
    Gripper,
    GripperTrack,
    finger_distance,
    judge_gripper,
    normalization_mask,
    rotate,
)
from invact_vla.data.dataset import DatasetConfig, EpisodeInfo, EpisodeNumbers, RobotDataset

logger = logging.getLogger(__name__)


class StoredDataset(RobotDataset):
    """A reader. Subclasses set, before `_select`: `all_episodes`, `camera_keys`, `action_dim`,
    `state_dim`, `lacking_state` (words), `format_name`; and give what is stored.

    Places count in `all_episodes`, which are all there are; `episodes` are the first `max_demos` of
    each task, `places` where they are."""

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
        """(T, A) as stored."""

    @abstractmethod
    def stored_state(self, place: int) -> np.ndarray | None:
        """(T, S) as stored, or None where there is none."""

    @abstractmethod
    def stored_frames(self, place: int, camera: str) -> np.ndarray:
        """(T, H, W, 3) as stored, of any number type."""

    def stored_executed(self, place: int) -> np.ndarray | None:
        """(T,) whether the stored action was executed, or None where all were."""
        return None

    def stored_rotation(self, place: int) -> str:
        """What makes the pictures upright, one of ROTATIONS."""
        return "none"

    @abstractmethod
    def source_files(self) -> list[tuple[str, Path]]:
        """Names and paths of the files that the data come from, in a fixed order."""

    def locate(self, place: int) -> tuple[Path, str]:
        """Where a demonstration is: the path to open, and its name there."""
        return Path(self.config.path), self.all_episodes[place].name

    def episode_files(self, place: int, camera: str) -> list[Path]:
        """The files that the pictures of a demonstration come from."""
        return [path for _, path in self.source_files()]

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
        option, source = self.config.gripper, str(self.config.path)
        tracks = [self.track(place) for place in self.places]
        try:
            return judge_gripper(tracks, option, source)
        except UserError:
            others = sorted(set(range(len(self.all_episodes))) - set(self.places))
            if not others:
                raise
        return judge_gripper([*tracks, *map(self.track, others)], option, source)

    def track(self, place: int) -> GripperTrack:
        """What the gripper's convention is judged by."""
        commands = self._checked_actions(place)[:, -1]
        fingers = finger_distance(self.stored_state(place))
        if fingers is not None and len(fingers) != len(commands):
            fingers = None
        if self.stored_executed(place) is not None:
            fingers = None  # they followed another's commands too
        return GripperTrack(self.all_episodes[place].name, commands, fingers)

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
        if state is not None:
            state = np.asarray(state, np.float32).reshape(len(state), -1)
            if state.shape[1] != self.state_dim:
                raise UserError(
                    f"{where}: state of {state.shape[1]} numbers, expected {self.state_dim} as in the "
                    "metadata or the first demonstration: repair or leave out this demonstration"
                )
            check_finite(where, "state", state)
            check_lengths(where, {"actions": len(actions), "state": len(state)})
        check_action_range(where, actions, self.config.action_range, self.has_gripper)
        executed = self.stored_executed(place)
        if executed is not None:
            if executed.ndim != 1 or not np.isin(executed, (0, 1)).all():
                raise UserError(f"{where}: interventions that are not one 0 or 1 a step")
            check_lengths(where, {"actions": len(actions), "interventions": len(executed)})
            executed = executed.astype(bool)
        return EpisodeNumbers(actions, state, executed)

    def numbers(self, index: int) -> EpisodeNumbers:
        stored = self.checked_numbers(self.places[index])
        actions = stored.actions.copy()
        if self.gripper is not None:
            actions[:, -1] = self.gripper.to_training(actions[:, -1])
        return replace(stored, actions=actions)

    def frames(self, index: int, camera: str) -> np.ndarray:
        if camera not in self.camera_keys:
            known = list(self.cameras)
            raise UserError(f"{self.config.path}: no camera {camera!r}, it has {known}")
        place = self.places[index]
        frames = self.upright_frames(place, camera)
        fault = None if camera in self._complained else picture_fault(frames)
        if fault is not None:  # said once a camera
            self._complained.add(camera)
            logger.warning("%s, %s: %s", self.where(place), camera, fault)
        return frames

    def upright_frames(self, place: int, camera: str) -> np.ndarray:
        """uint8 (T, H, W, 3), upright, as many as there are actions."""
        lengths = {"actions": self.all_episodes[place].length}
        check_lengths(self.where(place), lengths)  # before pictures of no step are asked for
        stored = self.stored_frames(place, camera)
        check_lengths(self.where(place), {**lengths, f"{camera} pictures": len(stored)})
        return rotate(to_uint8(f"{self.where(place)}, {camera}", stored), self.rotation(place))

    def rotation(self, place: int) -> str:
        """What is done to the stored pictures, one of ROTATIONS."""
        chosen = self.config.rotation
        return self.stored_rotation(place) if chosen == "auto" else chosen


def first_of_each_task(episodes: Sequence[EpisodeInfo], limit: int | None) -> list[int]:
    """Places of the first `limit` demonstrations of each task, in order; of all if it is None."""
    counts: Counter[str] = Counter()
    places = []
    for place, episode in enumerate(episodes):
        counts[episode.task] += 1
        if limit is None or counts[episode.task] <= limit:
            places.append(place)
    return places


def check_finite(where: str, name: str, values: np.ndarray) -> None:
    """UserError, with the first place, for NaN or infinity in values (T, D)."""
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        step, dimension = bad[0]
        raise UserError(
            f"{where}: {name} {dimension} of step {step} is {values[step, dimension]} ({len(bad)} such "
            "numbers): expected finite numbers; repair or leave out this demonstration"
        )


def check_action_range(where: str, actions: np.ndarray, action_range: str, gripper: bool) -> None:
    """UserError for actions (T, A) that were clearly not meant for [-1, 1], if they should be.

    action_range: "unit", "any", or "auto", which is "unit" for LIBERO's six deltas and a gripper."""
    unit = gripper and actions.shape[1] == LIBERO_ACTION_DIM
    if action_range == "any" or (action_range == "auto" and not unit):
        return
    deltas = np.abs(actions[:, : actions.shape[1] - gripper])
    if deltas.size and deltas.max() > FAR_FROM_UNIT:
        step, dimension = np.unravel_index(deltas.argmax(), deltas.shape)
        raise UserError(
            f"{where}: action {dimension} of step {step} is {actions[step, dimension]:g}, expected "
            "[-1, 1]: divide deltas by their controller's scale, take differences of absolute poses "
            "first, or say --data.action_range any if the robot is not LIBERO's"
        )


def action_fault(low: np.ndarray, high: np.ndarray, libero: bool) -> str | None:
    """What is wrong with a data set's actions as LIBERO's, by the range (A,) of each number; None if
    nothing, or if they are not meant for it. Moves tell: some tasks hardly turn the hand."""
    largest = np.abs([low, high])[:, :3].max(initial=0)
    if not libero or len(low) != LIBERO_ACTION_DIM or largest > FAR_BELOW_UNIT:
        return None
    return (
        f"no delta of the position is beyond {largest:.3g}, where LIBERO's fill [-1, 1]: if "
        "they are meters and radians, divide them by the controller's scale (0.05 m and 0.5 rad) to "
        "roll out there"
    )


def check_lengths(where: str, lengths: dict[str, int]) -> None:
    """UserError if the parts of a demonstration differ in length, or it has no step."""
    listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
    if len(set(lengths.values())) > 1:
        raise UserError(
            f"{where}: parts of unequal lengths ({listed}): expected one number of steps"
        )
    if 0 in lengths.values():
        raise UserError(f"{where}: no steps ({listed}): leave out this demonstration")


def to_uint8(where: str, frames: np.ndarray) -> np.ndarray:
    """Pictures as stored -> uint8 (T, H, W, 3).

    Floats in 0..1 (and a rounding error above) or in 0..255 are brought to uint8, channels that come
    first are put last; anything else is a UserError. where: demonstration and camera."""
    if frames.ndim == 4 and frames.shape[1] == 3 and frames.shape[3] != 3:
        frames = frames.transpose(0, 2, 3, 1)
    if frames.ndim != 4 or frames.shape[3] != 3 or not frames.size:
        raise UserError(
            f"{where}: pictures of shape {frames.shape}, expected (steps, height, width, 3)"
        )
    if np.issubdtype(frames.dtype, np.floating):
        low, high = float(frames.min()), float(frames.max())
        if not (low >= 0 and high <= 255 and not 1.001 < high < 2):  # NaN is neither
            raise UserError(
                f"{where}: pictures in [{low:g}, {high:g}], expected uint8, or floats in 0..1 or "
                "0..255: convert them"
            )
        frames = np.round(frames if high > 2 else np.minimum(frames, 1) * 255).astype(np.uint8)
    if frames.dtype != np.uint8:
        raise UserError(f"{where}: pictures of type {frames.dtype}, expected uint8 or floats")
    return np.ascontiguousarray(frames)


def picture_fault(frames: np.ndarray) -> str | None:
    """What is wrong with upright uint8 frames (T, H, W, 3) as a camera's pictures; None if nothing."""
    if frames.min() == frames.max():
        return f"all pictures are one color ({frames.flat[0]})"
    if frames.max() <= 1:
        return "all pictures are black, no value is above 1: floats in 0..1 made whole numbers?"
    if len(frames) > 2 and all(np.array_equal(frames[0], f) for f in frames[1:]):
        return "all pictures are the same one"
    return None
