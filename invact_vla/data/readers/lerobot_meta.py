"""What LeRobot data sets say about themselves: versions 2.0, 2.1 and 3.x as one list of episodes.

    v3   meta/info.json, meta/tasks.parquet, meta/episodes/chunk-*/file-*.parquet
         data/chunk-*/file-*.parquet, videos/<camera>/chunk-*/file-*.mp4: several episodes to a file
    v2   meta/info.json, meta/tasks.jsonl, meta/episodes.jsonl
         data/chunk-*/episode_*.parquet, videos/chunk-*/<camera>/episode_*.mp4: one to a file

Pictures are videos, or PNG in the parquet files (`dtype: image`).
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any

from invact_vla.core.errors import UserError
from invact_vla.core.files import read_json
from invact_vla.core.limits import inside, parse_json, read_text, short
from invact_vla.data.source_files import MAX_STEPS, files_of, read_columns

INFO = "meta/info.json"
V2_DATA = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
V2_VIDEO = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
V3_DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
V3_VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"

MOST_INDEX = 1_000_000_000  # of chunks, files, tasks, rows and frames
_PADDING = re.compile(r"(0?\d?d)?")  # what a number in a pattern may be padded with


@dataclass(frozen=True)
class LeRobotEpisode:
    """One episode. number: its own. words: the task, where the metadata say it. data: its parquet
    file. first_row: `index` of its first row, counted over the data set. videos: camera key -> (file,
    first frame)."""

    number: int
    length: int
    words: str | None
    data: Path
    first_row: int | None
    videos: dict[str, tuple[Path, int]]


@dataclass(frozen=True)
class LeRobotMeta:
    """info: meta/info.json. tasks: task_index -> words."""

    folder: Path
    info: dict[str, Any]
    tasks: dict[int, str]
    episodes: tuple[LeRobotEpisode, ...]

    @property
    def features(self) -> dict[str, Any]:
        return self.info["features"]

    @property
    def camera_keys(self) -> list[str]:
        """Keys of pictures, in the order of the file."""
        return [k for k, f in self.features.items() if f.get("dtype") in ("video", "image")]


def is_lerobot(folder: Path) -> bool:
    """Whether a folder holds a LeRobot data set of any version."""
    return (Path(folder) / INFO).is_file()


def read_meta(folder: Path) -> LeRobotMeta:
    """Everything but data and videos. Raises UserError for what is missing, by its name."""
    if not is_lerobot(folder):
        raise UserError(f"no LeRobot data set at {folder}: expected {INFO}")
    info: Any = read_json(inside(folder, INFO))
    features = _field(folder, info, "features")
    version = str(_field(folder, info, "codebase_version"))
    if not isinstance(features, dict) or not all(isinstance(f, dict) for f in features.values()):
        raise UserError(f"{folder / INFO}: features must say a dtype and a shape for each key")
    major = version.removeprefix("v").split(".")[0]
    readers = {"2": (_tasks_v2, _episodes_v2), "3": (_tasks_v3, _episodes_v3)}
    if major not in readers:
        raise UserError(
            f"{folder} is LeRobot format {short(version)}, expected v2.0, v2.1 or v3: convert it with "
            "LeRobot's own scripts"
        )
    read_tasks, read_episodes = readers[major]
    episodes = sorted(read_episodes(folder, info), key=lambda e: e.number)
    return LeRobotMeta(folder, info, read_tasks(folder), tuple(episodes))


def _field(where: Path, values: Mapping[str, Any], name: str, file: str = INFO) -> Any:
    """A field that must be there."""
    if not isinstance(values, Mapping) or values.get(name) is None:
        known = sorted(values) if isinstance(values, Mapping) else type(values).__name__
        raise UserError(
            f"{where / file} lacks {name}, it has {short(str(known))}: fetch it again or add it"
        )
    return values[name]


def fps_of(folder: Path, info: dict[str, Any], camera: str) -> float:
    """Frames per second of a camera's videos: of the data set, or as the camera's own entry says."""
    own = info["features"].get(camera, {}).get("info")
    own = own if isinstance(own, dict) else {}
    fps = info.get("fps") or own.get("video.fps") or own.get("fps")
    if not isinstance(fps, (int, float)) or not 0 < fps <= 10_000:
        raise UserError(f"{folder / INFO} lacks fps, which says where an episode begins in a video")
    return float(fps)


def _words(tasks: Any) -> str | None:
    """The first task of an episode, if it is in words."""
    found = [t for t in ([tasks] if isinstance(tasks, str) else tasks or []) if isinstance(t, str)]
    return found[0].strip() or None if found else None


def _path(folder: Path, info: dict[str, Any], name: str, default: str, **values: Any) -> Path:
    """A file's path from its pattern, which may only place the values and pad numbers."""
    pattern = info.get(name) or default
    try:
        parts = [(text, key, spec, how) for text, key, spec, how in Formatter().parse(pattern)]
        for _, key, spec, how in parts:
            if key is not None and (key not in values or how or not _PADDING.fullmatch(spec or "")):
                raise ValueError(f"{{{key}}}")
        return inside(folder, pattern.format(**values))
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{folder / INFO}: {name} {short(repr(pattern))} cannot be filled in ({short(error)}): "
            f"expected e.g. {default!r}"
        ) from error


def _number(folder: Path, values: Any, name: str, file: str = INFO, most: int = MOST_INDEX) -> int:
    """A field that must be a whole number of 0..most."""
    value = _field(folder, values, name, file)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise UserError(
            f"{folder / file}: {name} is {short(repr(value))}, expected a whole number of 0..{most}: "
            "fetch it again"
        )
    return value


def _videos(info: dict[str, Any]) -> list[str]:
    return [k for k, f in info["features"].items() if f.get("dtype") == "video"]


def _json_lines(folder: Path, name: str) -> list[dict[str, Any]]:
    lines = read_text(inside(folder, name)).splitlines()
    return [parse_json(line, str(folder / name)) for line in lines if line.strip()]


def _tasks_v2(folder: Path) -> dict[int, str]:
    name = "meta/tasks.jsonl"
    if not (folder / name).is_file():
        return {}
    rows = _json_lines(folder, name)
    return {_number(folder, r, "task_index", name): str(r.get("task") or "") for r in rows}


def _episodes_v2(folder: Path, info: dict[str, Any]) -> list[LeRobotEpisode]:
    name = "meta/episodes.jsonl"
    size = _number(folder, {"chunks_size": info.get("chunks_size") or 1000}, "chunks_size")
    episodes = []
    for row in _json_lines(folder, name):
        number = _number(folder, row, "episode_index", name)
        place = {"episode_chunk": number // size, "episode_index": number}
        videos = {
            key: (_path(folder, info, "video_path", V2_VIDEO, video_key=key, **place), 0)
            for key in _videos(info)
        }
        data = _path(folder, info, "data_path", V2_DATA, **place)
        length = _number(folder, row, "length", name, MAX_STEPS)
        episodes.append(
            LeRobotEpisode(number, length, _words(row.get("tasks")), data, None, videos)
        )
    return episodes


def _tasks_v3(folder: Path) -> dict[int, str]:
    """Words by task_index. They may be a column `task`, or the index of a pandas frame without a name,
    which parquet calls __index_level_0__: the column of strings is meant."""
    path = inside(folder, "meta/tasks.parquet")
    if not path.is_file():
        return {}
    table = read_columns(path)
    if "task_index" not in table.column_names:
        raise UserError(f"{path} lacks task_index, it has {table.column_names}: fetch it again")
    texts = [f.name for f in table.schema if "string" in str(f.type)]
    texts.sort(key=lambda name: (name != "task", name != "__index_level_0__"))
    if not texts:
        raise UserError(f"{path} has no column of words, only {table.column_names}: add `task`")
    indices, words = (table.column(n).to_pylist() for n in ("task_index", texts[0]))
    return {
        _number(folder, {"task_index": i}, "task_index", "meta/tasks.parquet"): str(w or "")
        for i, w in zip(indices, words, strict=True)
    }


def _episodes_v3(folder: Path, info: dict[str, Any]) -> list[LeRobotEpisode]:
    where = folder / "meta/episodes"
    paths = files_of(folder, where.glob("chunk-*/file-*.parquet"))
    if not paths:
        raise UserError(f"no chunk-*/file-*.parquet in {where}: the data set is incomplete")
    wanted = ["episode_index", "tasks", "length", "dataset_from_index"]
    wanted += ["data/chunk_index", "data/file_index"]
    for key in _videos(info):
        wanted += [f"videos/{key}/{n}" for n in ("chunk_index", "file_index", "from_timestamp")]
    episodes = []
    for path in paths:
        name = str(path.relative_to(folder))
        for row in read_columns(path, wanted).to_pylist():
            episodes.append(_episode_v3(folder, info, row, name))
    return episodes


def _episode_v3(
    folder: Path, info: dict[str, Any], row: dict[str, Any], name: str
) -> LeRobotEpisode:
    def number(key: str, most: int = MOST_INDEX) -> int:
        return _number(folder, row, key, name, most)

    videos = {}
    for key in _videos(info):
        if row.get(f"videos/{key}/chunk_index") is None:
            continue  # said when this camera is asked for
        place = {n: number(f"videos/{key}/{n}") for n in ("chunk_index", "file_index")}
        start = _field(folder, row, f"videos/{key}/from_timestamp", name)
        first = _first_frame(folder / name, start, fps_of(folder, info, key)) if start else 0
        videos[key] = (_path(folder, info, "video_path", V3_VIDEO, video_key=key, **place), first)
    place = {n: number(f"data/{n}") for n in ("chunk_index", "file_index")}
    return LeRobotEpisode(
        number("episode_index"), number("length", MAX_STEPS), _words(row.get("tasks")),
        _path(folder, info, "data_path", V3_DATA, **place), number("dataset_from_index"), videos,
    )  # fmt: skip


def _first_frame(where: Path, start_s: Any, fps: float) -> int:
    first = start_s * fps if isinstance(start_s, int | float) else math.nan
    if not 0 <= first <= MOST_INDEX:
        raise UserError(f"{where}: an episode begins at {short(repr(start_s))} s of its video")
    return round(first)
