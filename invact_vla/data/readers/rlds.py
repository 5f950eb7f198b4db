"""Reading RLDS data sets (Open X-Embodiment, modified_libero_rlds) without TensorFlow.

    <name>/<version>/{features.json, dataset_info.json}
    <name>/<version>/<name>-<split>.tfrecord-00000-of-00016

tensorflow-datasets knows the features, by its own classes and no others, and decodes numbers and texts
with NumPy; framing and pictures are ours (tfrecord.py, source_files.py), so that the pictures of an
episode are read only when they are asked for, and JPEG gives TensorFlow's pixels. One record is one
episode. Pictures are taken as upright.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from invact_vla.core.errors import UserError
from invact_vla.core.files import read_json
from invact_vla.core.limits import inside, short
from invact_vla.data.dataset import DatasetConfig, EpisodeInfo
from invact_vla.data.readers.tfrecord import Record, check_record, list_records, read_features
from invact_vla.data.source_files import (
    MAX_FRAME_BYTES,
    MAX_STEPS,
    choose_cameras,
    choose_key,
    decode_pictures,
    files_of,
)
from invact_vla.data.stored_dataset import StoredDataset

FEATURES, INFO = "features.json", "dataset_info.json"
CAMERAS = {"agentview": ("image", "agentview_rgb"), "wrist": ("wrist_image", "eye_in_hand_rgb")}
ACTIONS, STATES = ("action",), ("state", "proprio")
WORDS = ("language_instruction", "natural_language_instruction", "instruction", "language")
MAX_NUMBERS = 64 << 20  # bytes of the numbers and texts of an episode
LONGEST_TEXT = 4096  # bytes of an instruction
_SPLIT = re.compile(r"\w[\w.-]{0,99}")
_MOST_SPLITS = 1000


def rlds_folders(path: Path) -> list[Path]:
    """Version folders at a path: itself, or those one or two levels below."""
    for pattern in (FEATURES, f"*/{FEATURES}", f"*/*/{FEATURES}"):
        found = sorted(p.parent for p in Path(path).glob(pattern))
        if found:
            return found
    return []


class RldsDataset(StoredDataset):
    """The split `train` of an RLDS data set (all splits where there is none of that name)."""

    format_name = "RLDS"

    def __init__(self, config: DatasetConfig) -> None:
        super().__init__(config)
        self.folder = _version_folder(Path(config.path))
        steps = _steps_of(self.folder)
        observation = steps.get("observation", {})
        self._features = {**steps, **observation}
        # where a key lies: in the observation of a step, or in the step itself
        self._paths = {k: ("observation", k) if k in observation else (k,) for k in self._features}
        pictures = sorted(k for k, f in observation.items() if type(f).__name__ == "Image")
        where = str(config.path)
        self.camera_keys = choose_cameras(where, config.cameras, pictures, CAMERAS)
        self._action = choose_key(where, "action", config.action, steps, ACTIONS)
        self.action_dim = self._width(self._action)
        usual = [(k,) for k in STATES if k in observation]
        self._state = self._choose_state(where, self._features, sorted(self._features), usual)
        self.lacking_state = f"no state among {sorted(observation)}"
        self.state_dim = sum(map(self._width, self._state))
        self._words = next((k for k in WORDS if k in self._features), None)
        self._records = self._list_records()
        self._checked: set[int] = set()  # records whose checksum agrees
        self.all_episodes = tuple(self._info(i) for i in range(len(self._records)))
        self._select()

    def _width(self, key: str) -> int:
        """How many numbers a step has of a feature. UserError for what is no list of plain numbers."""
        where, feature = str(self.config.path), self._features[key]
        shape, encoding = getattr(feature, "shape", None), getattr(feature, "_encoding", None)
        if not isinstance(shape, tuple) or len(shape) > 1 or shape in ((None,), (0,)):
            raise UserError(f"{where}: {key} of shape {short(str(shape))}, expected (numbers,)")
        if getattr(encoding, "value", "none") == "zlib":
            raise UserError(f"{where}: {key} is compressed: save it without an encoding")
        return int(shape[0]) if shape else 1

    def _list_records(self) -> list[Record]:
        splits = _splits_of(self.folder)
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
            value = self._part(steps[0], self._words)
            if not isinstance(value, bytes) or len(value) > LONGEST_TEXT:
                raise UserError(
                    f"{self.config.path}: {self._words} is no text of at most {LONGEST_TEXT} bytes: "
                    "say --data.instruction"
                )
            words = " ".join(value.decode(errors="replace").split())
        if not words:
            raise UserError(
                f"{self.config.path}: episode {place} says no task ({self._words or WORDS[0]}): say "
                "--data.instruction"
            )
        return EpisodeInfo(f"episode_{place}", words, words, len(steps))

    def _part(self, step: Any, key: str) -> Any:
        for name in self._paths[key]:
            step = step[name]
        return step

    def _read(self, place: int, keys: Sequence[str], encoded: bool = False) -> Any:
        """The steps of an episode with some of their keys. encoded: these are pictures to be left as
        their bytes."""
        tfds = _import_tfds()
        tree: dict[str, Any] = {}
        for key in keys:
            *above, last = self._paths[key]
            inner = tree.setdefault(above[0], {}) if above else tree
            inner[last] = tfds.features.Text() if encoded else self._features[key]
        names = {"steps/" + "/".join(self._paths[key]) for key in keys}
        limit = MAX_FRAME_BYTES if encoded else MAX_NUMBERS
        record = self._records[place]
        data = read_features(record, lambda name: name.split("/ragged_")[0] in names, limit)
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
        steps = self._checked_read(place, keys)
        rows = ([np.ravel(self._part(step, key)) for key in keys] for step in steps)
        return np.array([np.concatenate(row) for row in rows])

    def stored_actions(self, place: int) -> np.ndarray:
        return self._numbers(place, [self._action])

    def stored_state(self, place: int) -> np.ndarray | None:
        return self._numbers(place, self._state).astype(np.float32) if self._state else None

    def stored_frames(self, place: int, camera: str) -> np.ndarray:
        key = self.camera_keys[camera]
        steps = self._checked_read(place, [key], encoded=True)
        encoded = (self._part(step, key) for step in steps)
        return decode_pictures(f"{self.where(place)}, {camera}", encoded, len(steps))

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


def _import_tfds() -> Any:
    """tensorflow-datasets, which needs no TensorFlow for this."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UserError(
            f"RLDS data need tensorflow-datasets ({error}): pip install 'invact-vla[rlds]' (it needs "
            "no TensorFlow)"
        ) from error
    return tfds


def _steps_of(folder: Path) -> dict[str, Any]:
    """The features of a step; FeaturesDicts become plain ones. UserError if there are none."""
    connector = _import_tfds().features.FeatureConnector
    content = read_json(inside(folder, FEATURES))
    try:
        with _known_classes_only(connector):
            steps = connector.from_json(content)["steps"].feature
        return {k: dict(f) if hasattr(f, "items") else f for k, f in steps.items()}
    except Exception as error:  # protobuf's own errors among them
        raise UserError(
            f"{folder / FEATURES} does not describe RLDS episodes ({short(error)}): expected a data set "
            "`steps` of action and observation"
        ) from error


@contextmanager
def _known_classes_only(connector: Any) -> Iterator[None]:
    """tensorflow-datasets imports any module that the file names as that of a class."""
    imports = connector.__dict__["cls_from_name"]
    known = dict(connector._registered_features)
    connector.cls_from_name = classmethod(lambda _, name: known[name])
    try:
        yield
    finally:
        connector.cls_from_name = imports


def _splits_of(folder: Path) -> dict[str, int]:
    """Episodes of each split, as dataset_info.json has them; 0 where it does not say. UserError if the
    files are no TFRecords."""
    info = read_json(inside(folder, INFO))
    try:
        splits = {
            str(split.get("name")): sum(int(n) for n in split.get("shardLengths") or [])
            for split in info.get("splits") or []
        }
        form = str(info.get("fileFormat") or "tfrecord")
        odd = [name for name in splits if not _SPLIT.fullmatch(name)]
        if odd or len(splits) > _MOST_SPLITS:
            raise ValueError(f"{len(splits)} splits, {odd[0] if odd else 'too many'}")
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{folder / INFO} does not describe splits ({short(error)})") from error
    if form != "tfrecord":
        raise UserError(
            f"{folder} holds files of format {short(form)}, expected tfrecord: convert them with "
            "tensorflow-datasets (convert_format)"
        )
    return splits
