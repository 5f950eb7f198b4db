"""What LeRobot data sets say about themselves: versions 2.0, 2.1 and 3.x as one list of episodes.

    v3   meta/info.json, meta/tasks.parquet, meta/episodes/chunk-*/file-*.parquet
         data/chunk-*/file-*.parquet, videos/<camera>/chunk-*/file-*.mp4: several episodes to a file
    v2   meta/info.json, meta/tasks.jsonl, meta/episodes.jsonl
         data/chunk-*/episode_*.parquet, videos/chunk-*/<camera>/episode_*.mp4: one to a file

Pictures are videos, or PNG in the parquet files (`dtype: image`).
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from string import Formatter
from typing import Any

from invact_vla.core.errors import UserError
from invact_vla.core.files import read_json
from invact_vla.core.limits import inside, parse_json, read_text, short
from invact_vla.data.source_files import MAX_STEPS, check_file, files_of, read_columns

INFO = "meta/info.json"
V2_DATA = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
V2_VIDEO = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
V3_DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
V3_VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"

MOST_INDEX = 1_000_000_000  # of chunks, files, tasks, rows and frames
_TASK_COLUMNS = ("task", "__index_level_0__")
_PADDING = re.compile(r"(0?\d?d)?")  # what a number in a pattern may be padded with


@dataclass(frozen=True)
class LeRobotEpisode:
    """One episode. number: its own. words: the task, where the metadata say it. data: its parquet
    file. videos: camera key -> (file, first frame)."""

    number: int
    length: int
    words: str | None
    data: Path
    videos: dict[str, tuple[Path, int]]


class LeRobotMeta:
    """info: meta/info.json. tasks: task_index -> words. UserError for what is missing, by its name."""

    def __init__(self, folder: Path) -> None:
        if not is_lerobot(folder):
            raise UserError(f"no LeRobot data set at {folder}: expected {INFO}")
        self.folder, self.info = folder, read_json(inside(folder, INFO))
        self.features: dict[str, Any] = self._field(self.info, "features")
        version = str(self._field(self.info, "codebase_version"))
        entries = self.features.values() if isinstance(self.features, dict) else [None]
        if not all(isinstance(entry, dict) for entry in entries):
            raise UserError(f"{folder / INFO}: features must say a dtype and a shape for each key")
        major = version.removeprefix("v").split(".")[0]
        if major not in ("2", "3"):
            raise UserError(
                f"{folder} is LeRobot format {short(version)}, expected v2.0, v2.1 or v3: convert it "
                "with LeRobot's own scripts"
            )
        self.shares_files = major == "3"  # several episodes in a file
        episodes = self._episodes_v2() if major == "2" else self._episodes_v3()
        self.episodes = sorted(episodes, key=lambda e: e.number)
        self._check_episodes()
        self.tasks: dict[int, str] = {}
        for number, words in self._tasks_v2() if major == "2" else self._tasks_v3():
            if self.tasks.setdefault(number, words) != words:
                found = short(f"{self.tasks[number]!r} and {words!r}")
                raise UserError(f"{folder}: task_index {number} is both {found}: repair meta/tasks")

    def _check_episodes(self) -> None:
        """UserError for episodes that are listed twice, or that are fewer or more than were counted."""
        numbers, counted = [e.number for e in self.episodes], self.info.get("total_episodes")
        twice = next((a for a, b in pairwise(numbers) if a == b), None)
        if twice is not None:
            raise UserError(
                f"{self.folder}: meta lists episode {twice} twice: repair meta/episodes"
            )
        if type(counted) is int and counted != len(numbers):
            raise UserError(
                f"{self.folder}: meta lists {len(numbers)} episodes, {INFO} counts {counted}: fetch "
                "meta again, or correct total_episodes"
            )

    @property
    def camera_keys(self) -> list[str]:
        """Keys of pictures, in the order of the file."""
        return [k for k, f in self.features.items() if f.get("dtype") in ("video", "image")]

    @property
    def _videos(self) -> list[str]:
        return [k for k, f in self.features.items() if f.get("dtype") == "video"]

    def _field(self, values: Any, name: str, file: str = INFO) -> Any:
        """A field that must be there."""
        if not isinstance(values, Mapping) or values.get(name) is None:
            known = sorted(values) if isinstance(values, Mapping) else type(values).__name__
            raise UserError(
                f"{self.folder / file} lacks {name}, it has {short(str(known))}: fetch it again or add "
                "it"
            )
        return values[name]

    def _number(self, values: Any, name: str, file: str = INFO, most: int = MOST_INDEX) -> int:
        """A field that must be a whole number of 0..most."""
        value = self._field(values, name, file)
        if type(value) is not int or not 0 <= value <= most:
            raise UserError(
                f"{self.folder / file}: {name} is {short(repr(value))}, expected a whole number of "
                f"0..{most}: fetch it again"
            )
        return value

    def _path(self, name: str, default: str, **values: Any) -> Path:
        """A file's path from its pattern, which may only place the values and pad numbers."""
        pattern = self.info.get(name) or default
        try:
            for _, key, spec, how in Formatter().parse(pattern):
                plain = key in values and not how and _PADDING.fullmatch(spec or "")
                if key is not None and not plain:
                    raise ValueError(f"{{{key}}}")
            return inside(self.folder, pattern.format(**values))
        except (TypeError, ValueError) as error:
            raise UserError(
                f"{self.folder / INFO}: {name} {short(repr(pattern))} cannot be filled in "
                f"({short(error)}): expected e.g. {default!r}"
            ) from error

    def _json_lines(self, name: str) -> Iterator[dict[str, Any]]:
        for line in read_text(check_file(inside(self.folder, name))).split("\n"):
            if line.strip():
                yield parse_json(line, str(self.folder / name))

    def _tasks_v2(self) -> Iterator[tuple[int, str]]:
        name = "meta/tasks.jsonl"
        for row in self._json_lines(name) if (self.folder / name).is_file() else ():
            yield self._number(row, "task_index", name), _words(row.get("task")) or ""

    def _episodes_v2(self) -> Iterator[LeRobotEpisode]:
        name = "meta/episodes.jsonl"
        size = self._number({"chunks_size": self.info.get("chunks_size") or 1000}, "chunks_size")
        for row in self._json_lines(name):
            number = self._number(row, "episode_index", name)
            place = {"episode_chunk": number // size, "episode_index": number}
            videos = {
                key: (self._path("video_path", V2_VIDEO, video_key=key, **place), 0)
                for key in self._videos
            }
            data = self._path("data_path", V2_DATA, **place)
            length = self._number(row, "length", name, MAX_STEPS)
            yield LeRobotEpisode(number, length, _words(row.get("tasks")), data, videos)

    def _tasks_v3(self) -> Iterator[tuple[int, str]]:
        """Words by task_index. They may be a column `task`, or the index of a pandas frame without a
        name, which parquet calls __index_level_0__: the column of strings is meant, if there is one."""
        name = "meta/tasks.parquet"
        path = inside(self.folder, name)
        if not path.is_file():
            return
        table = read_columns(path)
        texts = [f.name for f in table.schema if "string" in str(f.type)]
        texts.sort(key=lambda name: (*_TASK_COLUMNS, name).index(name))
        told = texts and (len(texts) == 1 or texts[0] in _TASK_COLUMNS)
        if "task_index" not in table.column_names or not told:
            raise UserError(
                f"{path} lacks task_index or a column of words, `task`: it has {table.column_names}: "
                "rename or add them"
            )
        for row in table.select(["task_index", texts[0]]).to_pylist():
            yield self._number(row, "task_index", name), _words(row[texts[0]]) or ""

    def _episodes_v3(self) -> Iterator[LeRobotEpisode]:
        where = self.folder / "meta/episodes"
        paths = files_of(self.folder, where.glob("chunk-*/file-*.parquet"))
        if not paths:
            raise UserError(f"no chunk-*/file-*.parquet in {where}: the data set is incomplete")
        wanted = ["episode_index", "tasks", "length"]
        wanted += ["data/chunk_index", "data/file_index"]
        for key in self._videos:
            wanted += [f"videos/{key}/{n}" for n in ("chunk_index", "file_index", "from_timestamp")]
        for path in paths:
            for row in read_columns(path, wanted).to_pylist():
                yield self._episode_v3(row, str(path.relative_to(self.folder)))

    def _episode_v3(self, row: dict[str, Any], name: str) -> LeRobotEpisode:
        def number(key: str, most: int = MOST_INDEX) -> int:
            return self._number(row, key, name, most)

        videos = {}
        for key in self._videos:
            if row.get(f"videos/{key}/chunk_index") is None:
                continue  # said when this camera is asked for
            place = {n: number(f"videos/{key}/{n}") for n in ("chunk_index", "file_index")}
            path = self._path("video_path", V3_VIDEO, video_key=key, **place)
            start_s = self._field(row, f"videos/{key}/from_timestamp", name)
            fps = self._fps(key) if start_s else 1.0  # asked for where it matters alone
            first = start_s * fps if isinstance(start_s, int | float) else math.nan
            if not 0 <= first <= MOST_INDEX:
                found = short(repr(start_s))
                raise UserError(
                    f"{self.folder / name}: an episode begins at {found} s of its video"
                )
            videos[key] = (path, round(first))
        place = {n: number(f"data/{n}") for n in ("chunk_index", "file_index")}
        return LeRobotEpisode(
            number("episode_index"), number("length", MAX_STEPS), _words(row.get("tasks")),
            self._path("data_path", V3_DATA, **place), videos,
        )  # fmt: skip

    def _fps(self, camera: str) -> float:
        """Frames per second of a camera's videos: of the data set, or as the camera's own entry says."""
        own = self.features.get(camera, {}).get("info")
        own = own if isinstance(own, dict) else {}
        fps = self.info.get("fps") or own.get("video.fps") or own.get("fps")
        if not isinstance(fps, int | float) or not 0 < fps <= 10_000:
            fault = "lacks fps" if fps is None else f"has fps {short(repr(fps))}"
            raise UserError(
                f"{self.folder / INFO} {fault}, expected a number of 0..10000, which says where an "
                "episode begins in a video: add it"
            )
        return float(fps)


def is_lerobot(folder: Path) -> bool:
    """Whether a folder holds a LeRobot data set of any version."""
    return (Path(folder) / INFO).is_file()


def _words(tasks: Any) -> str | None:
    """The task of an episode, if there is one and it is in words."""
    listed = tasks if isinstance(tasks, list) else [tasks]
    found = {" ".join(t.split()) for t in listed if isinstance(t, str)}
    return found.pop() or None if len(found) == 1 else None
