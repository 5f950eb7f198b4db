"""Reading RLDS data sets (Open X-Embodiment, modified_libero_rlds) without TensorFlow.

    <name>/<version>/{features.json, dataset_info.json}
    <name>/<version>/<name>-<split>.tfrecord-00000-of-00016

tensorflow-datasets knows the features and decodes numbers and texts with NumPy; framing and pictures are
ours (tfrecord.py, source_files.py), so that the pictures of an episode are read only when they are asked
for, and JPEG gives TensorFlow's pixels. One record is one episode. Pictures are taken as upright.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from invact_vla.core.errors import UserError
from invact_vla.core.limits import inside, short
from invact_vla.data.dataset import EpisodeInfo
from invact_vla.data.dataset_config import DatasetConfig
from invact_vla.data.readers.rlds_features import (
    FEATURES,
    import_tfds,
    splits_of,
    steps_of,
    width_of,
)
from invact_vla.data.readers.tfrecord import Record, check_record, list_records, read_features
from invact_vla.data.source_files import (
    MAX_FRAME_BYTES,
    MAX_STEPS,
    check_pixels,
    choose_cameras,
    choose_key,
    decode_picture,
    files_of,
    stack_alike,
)
from invact_vla.data.stored_dataset import StoredDataset

CAMERAS = {"agentview": ("image", "agentview_rgb"), "wrist": ("wrist_image", "eye_in_hand_rgb")}
ACTIONS, STATES = ("action",), ("state", "proprio")
MAX_NUMBERS = 64 << 20  # bytes of the numbers and texts of an episode
LONGEST_TEXT = 4096  # bytes of an instruction
WORDS = ("language_instruction", "natural_language_instruction", "instruction", "language")


def rlds_folders(path: Path) -> list[Path]:
    """Version folders at a path: itself, or those one or two levels below."""
    path = Path(path)
    patterns = (FEATURES, f"*/{FEATURES}", f"*/*/{FEATURES}")
    return next((sorted(p.parent for p in found) for pattern in patterns
                 if (found := list(path.glob(pattern)))), [])  # fmt: skip


class RldsDataset(StoredDataset):
    """The split `train` of an RLDS data set (all splits where there is none of that name)."""

    format_name = "RLDS"

    def __init__(self, config: DatasetConfig) -> None:
        super().__init__(config)
        self.folder = _version_folder(Path(config.path))
        self._steps = steps_of(self.folder)
        observation = self._steps.get("observation", {})
        pictures = sorted(k for k, f in observation.items() if type(f).__name__ == "Image")
        where = str(config.path)
        self.camera_keys = choose_cameras(where, config.cameras, pictures, CAMERAS)
        self._action = choose_key(where, "action", config.action, self._steps, ACTIONS)
        self.action_dim = self._size(self._action)
        known, usual = {**self._steps, **observation}, [(k,) for k in STATES if k in observation]
        self._state = self._choose_state(where, known, sorted(known), usual)
        self.lacking_state = f"no state among {sorted(observation)}"
        self.state_dim = sum(self._size(key) for key in self._state)
        self._words = next((k for k in WORDS if k in {**self._steps, **observation}), None)
        self._records = self._list_records()
        self._checked: set[int] = set()  # records whose checksum agrees
        self.all_episodes = tuple(self._info(i) for i in range(len(self._records)))
        self._select()

    def _path(self, key: str) -> tuple[str, ...]:
        """Where a key of a step lies: in its observation, or in the step itself."""
        return ("observation", key) if key in self._steps.get("observation", {}) else (key,)

    def _feature(self, key: str) -> Any:
        feature: Any = self._steps
        for part in self._path(key):
            feature = feature[part]
        return feature

    def _size(self, key: str) -> int:
        return width_of(str(self.config.path), key, self._feature(key))

    def _list_records(self) -> list[Record]:
        splits = splits_of(self.folder)
        chosen = ["train"] if "train" in splits else sorted(splits)
        self.split = ", ".join(chosen)
        records = []
        for name in chosen or ["*"]:
            files = files_of(self.folder, self.folder.glob(f"*-{name}.tfrecord*"))
            found = [record for path in files for record in list_records(path)]
            expected = splits.get(name, 0)
            if not found or (expected and len(found) != expected):
                raise UserError(
                    f"{self.folder}: {len(found)} episodes of split {name} in {len(files)} files, "
                    f"{short(str(expected or 'some'))} expected: fetch it again"
                )
            records += found
        return records

    def _info(self, place: int) -> EpisodeInfo:
        words = self.config.instruction
        steps = self._read(place, [self._action] + ([self._words] if self._words else []))
        if words is None and self._words and len(steps):
            words = self._text(_part(steps[0], self._path(self._words)))
        if not words:
            raise UserError(
                f"{self.config.path}: episode {place} says no task ({self._words or WORDS[0]}): say "
                "--data.instruction"
            )
        return EpisodeInfo(f"episode_{place}", words, words, len(steps))

    def _text(self, value: Any) -> str:
        if not isinstance(value, bytes) or len(value) > LONGEST_TEXT:
            raise UserError(
                f"{self.config.path}: {self._words} is no text of at most {LONGEST_TEXT} bytes: say "
                "--data.instruction"
            )
        return " ".join(value.decode(errors="replace").split())

    def _read(self, place: int, keys: Sequence[str], encoded: bool = False) -> Any:
        """The steps of an episode with some of their keys. encoded: these are pictures to be left as
        their bytes."""
        tfds = import_tfds()
        tree: dict[str, Any] = {}
        for key in keys:
            *above, last = self._path(key)
            inner = tree.setdefault(above[0], {}) if above else tree
            inner[last] = tfds.features.Text() if encoded else self._feature(key)
        names = {"steps/" + "/".join(self._path(key)) for key in keys}
        data = read_features(
            self._records[place],
            lambda name: name.split("/ragged_")[0] in names,
            MAX_FRAME_BYTES if encoded else MAX_NUMBERS,
        )
        features = tfds.features.FeaturesDict({"steps": tfds.features.Dataset(tree)})
        try:
            steps = features.deserialize_example_np(data)["steps"]
            if len(steps) > MAX_STEPS:
                raise ValueError(f"{len(steps)} steps")
            return steps
        except Exception as error:  # protobuf's own errors among them
            raise UserError(
                f"{self.config.path}: episode {place} has no {', '.join(keys)} as {FEATURES} promises "
                f"({short(error)}): fetch it again"
            ) from error

    def _checked_read(self, place: int, keys: Sequence[str], encoded: bool = False) -> Any:
        """As `_read`, of a record whose checksum agrees: that reads all of it, but once, and only of
        episodes that are used."""
        if place not in self._checked:
            check_record(self._records[place])
            self._checked.add(place)
        return self._read(place, keys, encoded)

    def _numbers(self, place: int, keys: Sequence[str]) -> np.ndarray:
        """(T, numbers) of some keys put together."""
        rows = [
            np.concatenate([np.ravel(_part(step, self._path(k))) for k in keys])
            for step in self._checked_read(place, keys)
        ]
        return np.array(rows)

    def stored_actions(self, place: int) -> np.ndarray:
        return self._numbers(place, [self._action])

    def stored_state(self, place: int) -> np.ndarray | None:
        return self._numbers(place, self._state).astype(np.float32) if self._state else None

    def stored_frames(self, place: int, camera: str) -> np.ndarray:
        key = self.camera_keys[camera]
        where = f"{self.where(place)}, {camera}"
        steps = self._checked_read(place, [key], encoded=True)
        if not len(steps):
            raise UserError(f"{where}: no pictures: fetch it again")
        first = decode_picture(where, _part(steps[0], self._path(key)))
        check_pixels(where, first.shape[0], first.shape[1], len(steps))
        return stack_alike(where, [decode_picture(where, _part(s, self._path(key))) for s in steps])

    def source_files(self) -> list[tuple[str, Path]]:
        return [(path.name, path) for path in sorted({r.path for r in self._records})]


def _version_folder(path: Path) -> Path:
    folders = rlds_folders(path)
    if len(folders) != 1:
        found = [str(f.relative_to(path)) for f in folders]
        raise UserError(
            f"{path}: expected one RLDS data set (<name>/<version>/{FEATURES}), found "
            f"{found or 'none'}: give the folder of one version"
        )
    return inside(path, folders[0].relative_to(path))


def _part(step: Any, path: Sequence[str]) -> Any:
    for name in path:
        step = step[name]
    return step
