"""Reading LeRobot data sets of version 2 and 3, such as `lerobot/libero`: see lerobot_meta.py.

Frames are found by their number, never by comparing times in seconds. Images are taken as upright and
the gripper as what the values say (LIBERO's copies: -1 open, +1 close).
"""

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from invact_vla.core.errors import UserError
from invact_vla.core.limits import inside, short
from invact_vla.data.dataset import DatasetConfig, EpisodeInfo
from invact_vla.data.readers.lerobot_meta import INFO, LeRobotEpisode, LeRobotMeta
from invact_vla.data.source_files import (
    check_file,
    choose_cameras,
    choose_key,
    decode_pictures,
    files_of,
    open_parquet,
    read_columns,
)
from invact_vla.data.stored_dataset import StoredDataset
from invact_vla.data.video.decode import open_file

AGENTVIEW, WRIST = "observation.images.image", "observation.images.image2"
STATE, ACTION = "observation.state", "action"
CAMERAS = {
    "agentview": (AGENTVIEW, "observation.images.agentview", "observation.image", "image"),
    "wrist": (WRIST, "observation.images.wrist", "observation.wrist_image", "wrist_image"),
}
STATES, ACTIONS = (STATE, "state"), (ACTION, "actions")
MAX_PICTURE = 64 << 20  # bytes of an encoded picture
MAX_WIDTH = 4096  # numbers of an action or a state
ROW_COLUMNS = ("episode_index", "frame_index", "index")
_NUMBERED = re.compile(r"((motor|action|dim)s?[_ .]?)?\d+", re.IGNORECASE)  # motor_0, motor_1, ...
BATCH = 32  # rows with pictures that are read at once


class LeRobotDataset(StoredDataset):
    """A LeRobot folder; episodes in the order of their numbers, tasks by their words."""

    def __init__(self, config: DatasetConfig) -> None:
        super().__init__(config)
        self.folder = Path(config.path)
        self.meta = LeRobotMeta(self.folder)
        self.format_name = f"LeRobot {self.meta.info['codebase_version']}"
        where, features = str(self.folder), self.meta.features
        self.camera_keys = choose_cameras(where, config.cameras, self.meta.camera_keys, CAMERAS)
        fps = self.meta.info.get("fps")
        self.fps = float(fps) if isinstance(fps, int | float) and 0 < fps < 10_000 else None
        self._action = choose_key(where, "action", config.action, features, ACTIONS)
        self.action_dim = self._size(self._action)
        self.action_names = _names(features[self._action].get("names"), self.action_dim)
        listed = sorted(features)
        self._state = self._choose_state(where, features, listed, [(key,) for key in STATES])
        self.lacking_state = f"no {STATE} among {listed}"
        self.state_dim = sum(self._size(key) for key in self._state)
        self.all_episodes = tuple(self._info(episode) for episode in self.meta.episodes)
        self._select()

    def _size(self, key: str) -> int:
        match self.meta.features[key].get("shape"):
            case [int(width)] if type(width) is int and 0 < width <= MAX_WIDTH:
                return width
            case shape:
                found = short(str(shape))
                raise UserError(
                    f"{self.folder}: {key} of shape {found}, expected [numbers]: correct {INFO}"
                )

    def _info(self, episode: LeRobotEpisode) -> EpisodeInfo:
        words = self.config.instruction or episode.words or self._words_in_data(episode)
        return EpisodeInfo(f"episode_{episode.number}", words, words, episode.length)

    def _words_in_data(self, episode: LeRobotEpisode) -> str:
        """By the task_index of its rows, which must be one."""
        tasks = _column(episode.data, read_columns(episode.data, ["task_index"]), "task_index")
        own = set() if tasks is None else set(tasks[self._places(episode)].tolist())
        words = self.meta.tasks.get(next(iter(own), -1))
        if not words or len(own) > 1:
            raise UserError(
                f"{self.folder}: no words for episode {episode.number}, or several (task_index "
                f"{short(str(sorted(own)))}, {len(self.meta.tasks)} tasks): repair meta/tasks, or say "
                "--data.instruction"
            )
        return words

    def source_files(self) -> list[tuple[str, Path]]:
        paths = {e.data for e in self.meta.episodes}
        paths |= {p for e in self.meta.episodes for p, _ in e.videos.values()}
        paths |= set((self.folder / "meta").rglob("*"))
        kept = files_of(self.folder, (p for p in paths if p.is_file()))
        return [(p.relative_to(self.folder).as_posix(), p) for p in kept]

    def episode_files(self, place: int, camera: str) -> list[Path]:
        episode = self.meta.episodes[place]
        video = episode.videos.get(self.camera_keys[camera])
        return [episode.data] if video is None else [episode.data, video[0]]

    def _table(self, episode: LeRobotEpisode) -> pa.Table:
        """The numbers of its file, kept for the next episode in it, and whose rows they are."""
        stamp = check_file(episode.data).stat().st_mtime_ns
        return _read_cached(episode.data, (self._action, *self._state, *ROW_COLUMNS), stamp)

    def _column(self, episode: LeRobotEpisode, name: str) -> np.ndarray | None:
        return _column(episode.data, self._table(episode), name)

    def _places(self, episode: LeRobotEpisode) -> np.ndarray:
        """Rows of its file that belong to an episode, in order; UserError unless all are there."""
        places, length = np.arange(self._table(episode).num_rows), episode.length
        if self.meta.shares_files:
            owner = self._column(episode, "episode_index")
            if owner is None:
                raise UserError(f"{episode.data} lacks the column episode_index: fetch it again")
            places = np.flatnonzero(owner == episode.number)
        for name in ("frame_index", "index"):
            order = self._column(episode, name)
            if order is not None:
                places = places[np.argsort(order[places], kind="stable")]
                if not np.diff(order[places]).all():
                    raise UserError(
                        f"{episode.data}: rows of episode {episode.number} have the same {name}: "
                        "fetch it again"
                    )
                break
        if len(places) != length:
            count = length - len(places)
            excess = f"{count} are missing" if count > 0 else f"there are {-count} more"
            raise UserError(
                f"{self.folder}: episode {episode.number} should have {length} rows, {excess}: fetch "
                "it again"
            )
        return places

    def _check_video(self, episode: LeRobotEpisode, path: Path) -> None:
        """UserError where rows were taken out of an episode and their pictures left in its video."""
        order, count = self._column(episode, "frame_index"), episode.length
        gaps = order is not None and (np.diff(order[self._places(episode)]) != 1).any()
        held = count
        if not self.meta.shares_files:
            with open_file(path) as video:
                held = video.info.n_frames
        if gaps or held > count + 1:
            what = "frames that no row has, by frame_index" if gaps else f"{held} frames"
            raise UserError(
                f"{path}: {what}, for {count} rows of episode {episode.number}: which frame belongs to "
                "which row cannot be told; take the frames of dropped rows out of the video too"
            )

    def _numbers(self, place: int, key: str) -> np.ndarray:
        episode = self.meta.episodes[place]
        values = self._column(episode, key)
        if values is None:
            known = self._table(episode).column_names
            raise UserError(f"{episode.data} lacks {key}, it has {known}")
        return values[self._places(episode)]

    def stored_actions(self, place: int) -> np.ndarray:
        return self._numbers(place, self._action)

    def stored_state(self, place: int) -> np.ndarray | None:
        parts = [self._numbers(place, key) for key in self._state]
        parts = [part.reshape(len(part), -1) for part in parts]
        return np.concatenate(parts, axis=1).astype(np.float32) if parts else None

    def stored_frames(self, place: int, camera: str) -> np.ndarray:
        key, episode = self.camera_keys[camera], self.meta.episodes[place]
        if self.meta.features[key]["dtype"] == "image":
            return self._pictures(place, key)
        if key not in episode.videos:
            raise UserError(f"{self.where(place)}: the metadata name no video of {key}")
        path, first = episode.videos[key]
        self._check_video(episode, check_file(path))
        with open_file(path) as video:
            return video.frames(first + np.arange(episode.length), seek=first > 0)

    def _pictures(self, place: int, key: str) -> np.ndarray:
        """Pictures that lie in the parquet file: encoded bytes, or the path of a file."""
        episode, where = self.meta.episodes[place], f"{self.where(place)}, {key}"
        file = open_parquet(episode.data)
        if key not in file.schema_arrow.names:
            raise UserError(f"{episode.data} lacks {key}, it has {file.schema_arrow.names}")
        cells = _cells(file, key, self._places(episode))
        return decode_pictures(where, map(self._encoded, cells), len(cells))

    def _encoded(self, cell: Any) -> Any:
        """The bytes of a picture; what are none is said when they are decoded."""
        given = cell if isinstance(cell, dict) else {"bytes": cell}
        data, path = given.get("bytes"), given.get("path")
        if data is None and path:
            file = check_file(inside(self.folder, str(path)))
            if file.stat().st_size > MAX_PICTURE:
                raise UserError(f"{file} is larger than a picture can be ({MAX_PICTURE >> 20} MiB)")
            return file.read_bytes()
        return data


@lru_cache(maxsize=4)
def _read_cached(path: Path, columns: tuple[str, ...], _stamp: int) -> pa.Table:
    return read_columns(path, columns)


def _column(path: Path, table: pa.Table, name: str) -> np.ndarray | None:
    """A column of numbers as (N,) or (N, D)."""
    if name not in table.column_names:
        return None
    try:
        column = table.column(name).combine_chunks()
        kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
        listed = any(is_kind(column.type) for is_kind in kinds)
        lengths: Any = pc.call_function("list_value_length", [column]) if listed else column
        if listed and (column.null_count or np.ptp(lengths.to_numpy(zero_copy_only=False)) > 0):
            raise ValueError("some rows hold none, or another count of numbers")
        values = (column.flatten() if listed else column).to_numpy(zero_copy_only=False)
        if listed:
            values = values.reshape(len(column), -1)
    except (pa.ArrowException, ValueError) as error:
        raise UserError(
            f"{path}: {name} cannot be read ({short(error)}), expected as many numbers in each row: "
            "fetch it again"
        ) from error
    if values.dtype.kind not in "biuf":
        raise UserError(f"{path}: {name} is a column of {short(column.type)}, expected numbers")
    return values


def _cells(file: Any, key: str, places: np.ndarray) -> list[Any]:
    """Cells of one column for some rows, reading only the row groups that hold them."""
    sizes = [file.metadata.row_group(g).num_rows for g in range(file.metadata.num_row_groups)]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    first, last = int(places.min()), int(places.max())
    groups = [g for g in range(len(sizes)) if starts[g] <= last and starts[g + 1] > first]
    row, cells = int(starts[groups[0]]), {}
    for batch in file.iter_batches(BATCH, row_groups=groups, columns=[key]):
        low, high = max(first - row, 0), min(last + 1 - row, batch.num_rows)
        if low < high:
            values = batch.column(0).slice(low, high - low).to_pylist()
            cells.update(zip(range(row + low, row + high), values, strict=True))
        row += batch.num_rows
        if row > last:
            break
    return [cells[int(place)] for place in places]


def _names(names: Any, size: int) -> tuple[str, ...] | None:
    """Names of a feature's numbers, which are a list, or a list by group; None if there are none, or
    none that mean anything, as those that LeRobot's conversion from version 1 gave."""
    if isinstance(names, dict):
        lists = [v for v in names.values() if isinstance(v, list)]
        names = lists[0] if len(lists) == 1 else list(names)
    told = isinstance(names, list) and len(names) == size
    told = told and not all(_NUMBERED.fullmatch(str(name)) for name in names)
    return tuple(map(str, names)) if told else None
