"""Reading LIBERO's own HDF5 demonstrations, and files like them.

Layout (LIBERO, robomimic): `data/<demonstration>/actions` (T, 7) in LIBERO's convention (-1 open, +1
close), `data/<demonstration>/obs/{agentview_rgb, eye_in_hand_rgb, ee_pos, ee_ori, gripper_states}`,
images as the simulator returns them, that is turned by 180 degrees, unless the file's
`macros_image_convention` says opencv. Where a file also holds `expert_actions` (those that were chosen
before noise disturbed them, as `invact libero demos` writes), these are learned from; with
`interventions` (T,), where it is 0 a policy acted in their place. Files that OpenVLA's replay has
regenerated have the same layout.
"""

import logging
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from invact_vla.core.errors import UserError
from invact_vla.core.limits import short
from invact_vla.data.conventions import (
    STATE_PARTS,
    STORED_ROTATION,
    agreed_rotation,
    needed_rotation,
)
from invact_vla.data.dataset import DatasetConfig, EpisodeInfo
from invact_vla.data.hdf5_file import SUFFIXES, open_hdf5, read_array
from invact_vla.data.instructions import choose_instruction, says_a_task, stored_instruction, text
from invact_vla.data.source_files import MAX_STEPS, files_of
from invact_vla.data.stored_dataset import StoredDataset, check_lengths, to_uint8

logger = logging.getLogger(__name__)
OPENCV_DEMOS = 3  # demonstrations of a file by which its orientation is judged
CAMERAS = {"agentview": "agentview_rgb", "wrist": "eye_in_hand_rgb"}
ACTION_KEYS = ("expert_actions", "actions")  # the first that is there is learned from
STATE_FALLBACK = ("ee_states", "gripper_states")  # ee_states: ee_pos and ee_ori in one


def hdf5_files(path: Path) -> list[Path]:
    """The demonstration files at a path: itself, or those in the folder, or else below it."""
    path = Path(path)
    if not path.is_dir():
        return [path] if path.suffix in SUFFIXES else []
    found = [p for p in path.iterdir() if p.suffix in SUFFIXES]
    found = found or [p for p in path.rglob("*") if p.suffix in SUFFIXES]
    return files_of(path, (p for p in found if p.is_file() and not p.name.startswith(".")))


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The group of a file that holds the demonstrations; what HDF5 complains of is a UserError."""
    if not path.exists():
        raise UserError(f"no demonstrations {path}: make some with `invact libero demos`")
    with open_hdf5(path) as file:
        yield file.get("data", file)


class _Place(NamedTuple):
    """Where a demonstration is: its file, its group and what the file says about its pictures."""

    path: Path
    group: str
    convention: str


class Hdf5Dataset(StoredDataset):
    """One HDF5 file, or all of a folder; demonstrations of a file in the order of their numbers."""

    format_name = "LIBERO HDF5"

    def __init__(self, config: DatasetConfig) -> None:
        super().__init__(config)
        self.files = hdf5_files(config.path)
        if not self.files:
            raise UserError(
                f"no demonstrations {config.path}: expected an HDF5 file or a folder of them; make "
                "some with `invact libero demos`"
            )
        self._places: list[_Place] = []
        self._opencv: dict[Path, str] = {}
        self.file_attributes: dict[Path, dict[str, Any]] = {}
        self.all_episodes = tuple(info for path in self.files for info in self._list_file(path))
        self._look_at_first()
        self._select()

    def source_files(self) -> list[tuple[str, Path]]:
        return [(path.name, path) for path in self.files]

    def locate(self, place: int) -> tuple[Path, str]:
        return self._places[place][:2]

    def episode_files(self, place: int, camera: str) -> list[Path]:
        return [self._places[place].path]

    def _list_file(self, path: Path) -> list[EpisodeInfo]:
        with opened(path) as data:
            names = _demonstrations(path, data, self.config.action)
            attributes = {name: data.attrs[name] for name in data.attrs}
            self.file_attributes[path] = attributes
            convention = text(attributes.get("macros_image_convention", "opengl")).lower()
            if convention not in STORED_ROTATION and self.config.rotation == "auto":
                raise UserError(
                    f"{path}: macros_image_convention {convention!r}, expected one of "
                    f"{', '.join(STORED_ROTATION)}: say --data.rotation none, rotate180, flip or mirror"
                )
            self._places += [_Place(path, name, convention) for name in names]
            of_file = choose_instruction(path, stored_instruction(attributes))
            return [self._info(path, data[name], name, of_file) for name in names]

    def _info(self, path: Path, group: Any, name: str, of_file: str | None) -> EpisodeInfo:
        own = stored_instruction(group.attrs)
        words = self.config.instruction or own or of_file
        if not words:
            raise UserError(
                f"{path}: neither its name nor its problem_info.language_instruction says the task: "
                "name it <task_in_words>_demo.hdf5, or say --data.instruction"
            )
        shape = getattr(group[_action_key(group, self.config.action)], "shape", ())
        if not shape or shape[0] > MAX_STEPS:
            raise UserError(
                f"{path}: {short(name)} claims actions of shape {short(str(shape))}, expected (steps, "
                f"numbers) with at most {MAX_STEPS} steps"
            )
        one_task = own in (None, of_file) and says_a_task(path.stem.replace("_", " "))
        task = path.stem if one_task else words
        root = Path(self.config.path)
        prefix = f"{path.relative_to(root).with_suffix('')}/" if len(self.files) > 1 else ""
        return EpisodeInfo(prefix + name, task, words, int(shape[0]))

    def _look_at_first(self) -> None:
        """What there is, from the first demonstration; each is held against it when it is read."""
        if not self.all_episodes:
            return
        where = self.where(0)
        with self._group(0) as (group, obs):
            shape = group[_action_key(group, self.config.action)].shape
            if len(shape) != 2 or not shape[1]:
                raise UserError(f"{where}: actions of shape {shape}, expected (steps, numbers)")
            self.action_dim = int(shape[1])
            dims = {key: getattr(obs[key], "ndim", 0) for key in sorted(obs)}
            self.camera_keys = dict(self.config.cameras)
            self.camera_keys = self.camera_keys or {c: k for c, k in CAMERAS.items() if k in obs}
            wanted = list(self.camera_keys.values()) or [CAMERAS["agentview"]]
            missing = [key for key in wanted if key not in obs]
            if missing:
                pictures = [key for key in dims if dims[key] == 4]
                raise UserError(
                    f"{where}: no pictures {missing[0]}; it has {pictures or 'none at all'}: say which "
                    "with --data.cameras '{agentview: KEY}'"
                )
            listed = [key for key in dims if dims[key] in (1, 2)]
            usual = (STATE_PARTS, STATE_FALLBACK)
            self._state_keys = self._choose_state(where, obs, listed, usual)
            lack = ", ".join(key for key in STATE_PARTS if key not in obs)
            self.lacking_state = f"obs lacks {lack}, it has {listed or 'no numbers'}"
            self.state_dim = sum(int(np.prod(obs[key].shape[1:])) for key in self._state_keys)

    @contextmanager
    def _group(self, place: int) -> Iterator[tuple[Any, Any]]:
        """The HDF5 group of a demonstration, and that of its observations; a key that is not in it is
        a UserError that names it."""
        at = self._places[place]
        with opened(at.path) as data:
            try:
                group = data[at.group]
                yield group, group.get("obs", group)
            except KeyError as error:
                reason = error.args[0] if error.args else error
                raise UserError(f"{self.where(place)}: {reason}") from error

    def miscounted(self) -> list[tuple[Path, int, int]]:
        """Files whose num_demos is not what they hold: (file, num_demos, demonstrations)."""
        says = {p: found.get("num_demos") for p, found in self.file_attributes.items()}
        held = Counter(at.path for at in self._places)
        whole = {p: int(n) for p, n in says.items() if isinstance(n, int | np.integer)}
        return [(p, n, held[p]) for p, n in whole.items() if n != held[p]]

    @property
    def regenerated(self) -> bool:
        """Whether OpenVLA's replay made the files: it stores LIBERO's simulator states, but copies no
        description of the problem."""
        described = {"problem_info", "env_args", "bddl_file_name"}
        if any(described & set(attributes) for attributes in self.file_attributes.values()):
            return False
        with self._group(0) as (group, _):
            return "states" in group and "robot_states" in group

    def stored_actions(self, place: int) -> np.ndarray:
        with self._group(place) as (group, _):
            return read_array(group[_action_key(group, self.config.action)])

    def stored_state(self, place: int) -> np.ndarray | None:
        if not self._state_keys:
            return None
        with self._group(place) as (_, obs):
            parts = [read_array(_part(obs, key)) for key in self._state_keys]
        parts = [part.reshape(len(part), -1) for part in parts]
        lengths = {key: len(part) for key, part in zip(self._state_keys, parts, strict=True)}
        check_lengths(self.where(place), lengths)
        return np.concatenate(parts, axis=1)

    def stored_executed(self, place: int) -> np.ndarray | None:
        with self._group(place) as (group, _):
            key = "interventions"
            own = _action_key(group, self.config.action) == ACTION_KEYS[0]
            return read_array(group[key]) if own and key in group else None

    def stored_frames(self, place: int, camera: str) -> np.ndarray:
        with self._group(place) as (_, obs):
            return read_array(_part(obs, self.camera_keys[camera]))

    def stored_rotation(self, place: int) -> str:
        at = self._places[place]
        if at.convention != "opencv":
            return STORED_ROTATION[at.convention]
        if at.path not in self._opencv:
            self._opencv[at.path] = self._judge_opencv(at.path)
        return self._opencv[at.path]

    def _judge_opencv(self, path: Path) -> str:
        """Whether a file's upright pictures are mirrored to what policies see."""
        places = [i for i, at in enumerate(self._places) if at.path == path][:OPENCV_DEMOS]
        found = agreed_rotation(self._needed_rotation(place) for place in places)
        if found in ("flip", "rotate180"):
            raise UserError(
                f"{path}: macros_image_convention opencv says upright, but the robot moves upside down "
                "in its pictures: say --data.rotation rotate180, flip, mirror or none"
            )
        if found is None:
            logger.warning(
                "%s: pictures are taken as upright (macros_image_convention opencv); whether they are "
                "mirrored cannot be told: say --data.rotation mirror if robosuite wrote them", path,
            )  # fmt: skip
        return found or STORED_ROTATION["opencv"]

    def _needed_rotation(self, place: int) -> str | None:
        with self._group(place) as (_, obs):
            key = next((k for k in ("ee_pos", "ee_states") if k in obs), None)
            if key is None or "agentview" not in self.camera_keys:
                return None
            ee_pos = read_array(obs[key])[:, :3]
        frames = to_uint8(self.where(place), self.stored_frames(place, "agentview"))
        return needed_rotation(frames, ee_pos) if len(frames) == len(ee_pos) else None


def _part(obs: Any, key: str) -> Any:
    if key not in obs:
        raise KeyError(f"no {key}, which the first demonstration has")
    return obs[key]


def _demonstrations(path: Path, data: Any, action: str | None) -> list[str]:
    """Names of the groups with actions, in the order of their numbers; other groups are passed over,
    but one with observations and no actions, or a name like theirs, is a damaged demonstration."""
    import h5py

    groups = [name for name in data if isinstance(data[name], h5py.Group)]
    found = [name for name in groups if _action_key(data[name], action, strict=False)]
    kind = lambda name: re.sub(r"\d+", "#", name)
    alike, others = set(map(kind, found)), [name for name in groups if name not in found]
    damaged = [name for name in others if "obs" in data[name] or kind(name) in alike]
    wanted = action or "actions"
    if damaged:
        raise UserError(
            f"{path}: {damaged[0]} has {'obs but ' if 'obs' in data[damaged[0]] else ''}no {wanted}: it "
            f"has {sorted(data[damaged[0]]) or 'nothing'}; remove it, or say --data.action"
        )
    if not found:
        raise UserError(
            f"{path} holds no demonstration: expected data/demo_<i>/{wanted} and data/demo_<i>/obs, it "
            f"has {groups or sorted(data) or 'nothing'}"
        )
    return sorted(found, key=natural_order)


def _action_key(group: Any, action: str | None, strict: bool = True) -> str:
    keys = (action,) if action else ACTION_KEYS
    found = next((key for key in keys if key in group), "")
    if strict and not found:
        raise KeyError(f"no {keys[-1]}, it has {sorted(group)}")
    return found


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """Sorts demo_2 before demo_10, and words without numbers by their letters."""
    parts = re.findall(r"\d+|\D+", name)
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts]
