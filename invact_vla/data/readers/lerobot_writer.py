"""Writing LeRobot v3 data sets: what `lerobot.py` reads, one video file per episode and camera."""

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from invact_vla.core.errors import UserError
from invact_vla.core.files import atomic_folder, write_json
from invact_vla.data.dataset import RobotEpisode
from invact_vla.data.readers.lerobot import ACTION, AGENTVIEW, STATE, WRIST
from invact_vla.data.readers.lerobot_meta import INFO, V3_DATA, V3_VIDEO
from invact_vla.data.video.video_io import write_video

CHUNK = 1000  # episodes per folder of videos
GOP = 2  # frames between key frames, LeRobot's own choice: random access in training
CRF = 18
PIXEL_STRIDE = 4  # statistics of images are taken over every fourth row and column
FEATURES = {
    STATE: ("float32", [8], ["x", "y", "z", "ax", "ay", "az", "g0", "g1"]),
    ACTION: ("float32", [7], ["dx", "dy", "dz", "dax", "day", "daz", "gripper"]),
    "timestamp": ("float32", [1], None),
    "frame_index": ("int64", [1], None),
    "episode_index": ("int64", [1], None),
    "index": ("int64", [1], None),
    "task_index": ("int64", [1], None),
}
QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}


def write_lerobot(folder: Path, episodes: Iterable[RobotEpisode], fps: int = 20) -> None:
    """Write a data set, atomically. Episodes are taken one by one, so that they need not fit memory.

    Images are stored as given (upright), the gripper in env convention (-1 open, +1 close).
    Quantiles of the whole are exact; LeRobot itself averages those of the episodes."""
    with atomic_folder(folder) as temporary:
        writer = _Writer(temporary, fps)
        for episode in episodes:
            writer.add(episode)
        writer.finish()


class _Writer:
    """Collects rows; videos go to disk at once."""

    def __init__(self, folder: Path, fps: int) -> None:
        self._folder, self._fps = folder, fps
        self._tasks: dict[str, int] = {}
        self._columns: dict[str, list[np.ndarray]] = defaultdict(list)
        self._pixels: dict[str, list[np.ndarray]] = defaultdict(list)
        self._rows: list[dict[str, Any]] = []
        self._sizes: dict[str, tuple[int, ...]] = {}
        self._total = 0

    def add(self, episode: RobotEpisode) -> None:
        """One episode: its videos now, its numbers with `finish`."""
        number, length = len(self._rows), len(episode.actions)
        task = self._tasks.setdefault(episode.instruction, len(self._tasks))
        actions, frame = episode.actions.astype(np.float32), np.arange(length)
        actions[:, -1] = 1 - 2 * actions[:, -1]
        columns = {
            STATE: episode.state.astype(np.float32),
            ACTION: actions,
            "timestamp": (frame / self._fps).astype(np.float32),
            "frame_index": frame,
            "episode_index": np.full(length, number),
            "index": frame + self._total,
            "task_index": np.full(length, task),
        }
        row: dict[str, Any] = {
            "episode_index": number, "tasks": [episode.instruction], "length": length,
            "data/chunk_index": 0, "data/file_index": 0,
            "dataset_from_index": self._total, "dataset_to_index": self._total + length,
        }  # fmt: skip
        statistics = {name: _statistics(values) for name, values in columns.items()}
        for camera, frames in ((AGENTVIEW, episode.agentview), (WRIST, episode.wrist)):
            if frames is not None:
                row |= self._add_video(camera, frames, number)
                pixels = frames[:, ::PIXEL_STRIDE, ::PIXEL_STRIDE].reshape(-1, 3)
                statistics[camera] = _image_statistics(pixels, length)
                self._pixels[camera].append(pixels)
        for name, values in columns.items():
            self._columns[name].append(values)
        for name, measures in statistics.items():
            row |= {f"stats/{name}/{measure}": value for measure, value in measures.items()}
        self._rows.append(row | {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0})
        self._total += length

    def _add_video(self, camera: str, frames: np.ndarray, number: int) -> dict[str, Any]:
        size = self._sizes.setdefault(camera, frames.shape[1:])
        if frames.shape[1:] != size:
            raise UserError(f"{camera}: frames of {frames.shape[1:]} after frames of {size}")
        chunk, file = divmod(number, CHUNK)
        name = V3_VIDEO.format(video_key=camera, chunk_index=chunk, file_index=file)
        write_video(self._folder / name, frames, self._fps, "h264", CRF, gop=GOP)
        values = {
            "chunk_index": chunk, "file_index": file,
            "from_timestamp": 0.0, "to_timestamp": len(frames) / self._fps,
        }  # fmt: skip
        return {f"videos/{camera}/{key}": value for key, value in values.items()}

    def finish(self) -> None:
        """Write the tables and the metadata."""
        if not self._rows:
            raise UserError("no episodes to write: a LeRobot data set needs at least one")
        columns = {name: np.concatenate(parts) for name, parts in self._columns.items()}
        statistics = {name: _statistics(values) for name, values in columns.items()}
        for camera, parts in self._pixels.items():
            statistics[camera] = _image_statistics(np.concatenate(parts), self._total)
        tables = {
            V3_DATA.format(chunk_index=0, file_index=0): pa.table(
                {name: _column(values) for name, values in columns.items()}
            ),
            "meta/episodes/chunk-000/file-000.parquet": pa.Table.from_pylist(self._rows),
            "meta/tasks.parquet": _task_table(self._tasks),
        }
        for name, table in tables.items():
            (self._folder / name).parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, self._folder / name)
        write_json(self._folder / "meta/stats.json", statistics)
        write_json(self._folder / INFO, self._info())

    def _info(self) -> dict[str, Any]:
        features: dict[str, Any] = {
            camera: {
                "dtype": "video", "shape": list(size), "names": ["height", "width", "channel"],
                "info": {
                    "video.height": size[0], "video.width": size[1], "video.codec": "h264",
                    "video.pix_fmt": "yuv420p", "video.fps": self._fps, "video.channels": 3,
                    "has_audio": False, "is_depth_map": False,
                },
            }
            for camera, size in self._sizes.items()
        }  # fmt: skip
        for name, feature in FEATURES.items():
            features[name] = dict(zip(("dtype", "shape", "names"), feature, strict=True))
        return {
            "codebase_version": "v3.0", "fps": self._fps, "features": features,
            "total_episodes": len(self._rows), "total_frames": self._total,
            "total_tasks": len(self._tasks), "chunks_size": CHUNK,
            "data_files_size_in_mb": 100, "video_files_size_in_mb": 200,
            "data_path": V3_DATA, "video_path": V3_VIDEO, "robot_type": "panda",
            "splits": {"train": f"0:{len(self._rows)}"},
        }  # fmt: skip


def _statistics(values: np.ndarray) -> dict[str, Any]:
    """LeRobot's measures of a column (N,) or (N, D), one number a dimension."""
    rows = values.reshape(len(values), -1).astype(np.float64)
    measures = {
        "min": rows.min(0), "max": rows.max(0), "mean": rows.mean(0), "std": rows.std(0),
        **{name: np.quantile(rows, q, axis=0) for name, q in QUANTILES.items()},
    }  # fmt: skip
    return {name: value.tolist() for name, value in measures.items()} | {"count": [len(rows)]}


def _image_statistics(pixels: np.ndarray, frames: int) -> dict[str, Any]:
    """The same for pixels (N, 3) in [0, 1], shaped (3, 1, 1) as LeRobot has them."""
    measures = _statistics(pixels / 255.0)
    shaped = {name: [[[v]] for v in values] for name, values in measures.items()}
    return shaped | {"count": [frames]}


def _column(values: np.ndarray) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def _task_table(tasks: dict[str, int]) -> pa.Table:
    """Tasks with the text as the index of a pandas frame, which LeRobot looks it up by."""
    table = pa.table({"task_index": list(tasks.values()), "task": list(tasks)})
    kinds = {"task_index": ("int64", "int64"), "task": ("unicode", "object")}
    pandas = {
        "index_columns": ["task"], "column_indexes": [], "pandas_version": "2.0.0",
        "columns": [
            {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy,
             "metadata": None}
            for name, (kind, numpy) in kinds.items()
        ],
    }  # fmt: skip
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})
