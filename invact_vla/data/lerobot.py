"""Reading LeRobot v3 data sets of one arm with up to two cameras, such as `lerobot/libero`.

    meta/info.json, meta/tasks.parquet, meta/episodes/chunk-*/file-*.parquet
    data/chunk-*/file-*.parquet                     observation.state (8), action (7)
    videos/<camera>/chunk-*/file-*.mp4              several episodes to a file, or one

Frames are found by their number, never by comparing times in seconds. Images are stored upright and
the gripper in env convention (-1 open, +1 close); what comes out is as in `libero_hdf5`.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from invact_vla.data.conventions import gripper_to_training
from invact_vla.data.decode import decode_frames
from invact_vla.data.libero_hdf5 import RobotEpisode
from invact_vla.errors import UserError
from invact_vla.training.files import read_json

VERSION = "v3.0"
INFO = "meta/info.json"
AGENTVIEW, WRIST = "observation.images.image", "observation.images.image2"
STATE, ACTION = "observation.state", "action"


def is_lerobot(folder: Path) -> bool:
    """Whether a folder holds a LeRobot data set of any version."""
    return (Path(folder) / INFO).is_file()


def read_lerobot(
    folder: Path, wrist: bool = False, cameras: tuple[str, str] = (AGENTVIEW, WRIST)
) -> list[RobotEpisode]:
    """All episodes in their order.

    cameras: keys of the third-person and the hand camera; the second is read only with `wrist`.
    Raises UserError for another version, a missing key, or a file that does not hold what the
    metadata promises.
    """
    folder = Path(folder)
    info = _checked_info(folder, cameras[: 1 + wrist])
    tasks = {row["task_index"]: row["task"] for row in _rows([folder / "meta/tasks.parquet"])}
    episodes = sorted(_rows(_files(folder / "meta/episodes")), key=lambda e: e["episode_index"])
    table = pa.concat_tables([pq.read_table(p) for p in _files(folder / "data")])
    columns = {name: _matrix(table, name) for name in (STATE, ACTION, "task_index", "index")}
    place = {int(index): row for row, index in enumerate(columns["index"])}
    frames = [_frames(folder, info, episodes, camera) for camera in cameras[: 1 + wrist]]
    result = []
    for number, episode in enumerate(episodes):
        span = range(episode["dataset_from_index"], episode["dataset_to_index"])
        missing = [index for index in span if index not in place]
        if missing or len(span) != episode["length"]:
            raise UserError(
                f"{folder}: episode {episode['episode_index']} should have {episode['length']} "
                f"rows {span.start}..{span.stop - 1}, {len(missing)} are missing: fetch it again"
            )
        rows = [place[index] for index in span]
        actions = columns[ACTION][rows].astype(np.float64)
        actions[:, 6] = _checked_gripper(folder, actions[:, 6])
        result.append(
            RobotEpisode(
                f"episode_{episode['episode_index']}",
                tasks[int(columns["task_index"][rows[0]])],
                frames[0][number],
                frames[1][number] if wrist else None,
                columns[STATE][rows].astype(np.float32),
                actions,
            )
        )
    return result


def _checked_info(folder: Path, cameras: Sequence[str]) -> Any:
    path = folder / INFO
    if not path.is_file():
        raise UserError(f"no LeRobot data set at {folder}: expected {INFO}")
    info: Any = read_json(path)
    version = str(info.get("codebase_version"))
    if not version.startswith("v3."):
        raise UserError(
            f"{folder} is LeRobot format {version}, expected v3.x: convert it with LeRobot's own "
            "lerobot.scripts.convert_dataset_v21_to_v30"
        )
    expected = {STATE: [8], ACTION: [7], **dict.fromkeys(cameras)}
    for name, shape in expected.items():
        feature = info["features"].get(name)
        if feature is None or shape not in (None, feature["shape"]):
            known = {n: f["shape"] for n, f in info["features"].items()}
            raise UserError(f"{folder}: expected {name} {shape or '(camera)'}, it has {known}")
    return info


def _files(folder: Path) -> list[Path]:
    paths = sorted(folder.glob("chunk-*/file-*.parquet"))
    if not paths:
        raise UserError(f"no chunk-*/file-*.parquet in {folder}: the data set is incomplete")
    return paths


def _rows(paths: list[Path]) -> list[dict[str, Any]]:
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


def _matrix(table: pa.Table, name: str) -> np.ndarray:
    """A column as (N,) or (N, D)."""
    return np.array(table.column(name).to_pylist())


def _checked_gripper(folder: Path, gripper: np.ndarray) -> np.ndarray:
    """Training convention; refuses values that are not in env convention."""
    if gripper.min() >= 0 and gripper.max() > 0 and 0.0 in gripper:
        raise UserError(
            f"{folder}: gripper actions in [{gripper.min():g}, {gripper.max():g}], expected LIBERO's "
            "-1 (open) to +1 (close): convert them with 1 - 2 x where 1 means open"
        )
    return gripper_to_training(gripper)


def _frames(
    folder: Path, info: Any, episodes: list[dict[str, Any]], camera: str
) -> dict[int, np.ndarray]:
    """Frames of every episode, by its place in the list; each video is decoded once."""
    by_file: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number, episode in enumerate(episodes):
        prefix = f"videos/{camera}"
        key = (episode[f"{prefix}/chunk_index"], episode[f"{prefix}/file_index"])
        by_file[key].append(number)
    frames = {}
    for (chunk, file), numbers in by_file.items():
        path = folder / info["video_path"].format(
            video_key=camera, chunk_index=chunk, file_index=file
        )
        starts = [
            round(episodes[n][f"videos/{camera}/from_timestamp"] * info["fps"]) for n in numbers
        ]
        spans = [
            np.arange(episodes[n]["length"]) + start
            for n, start in zip(numbers, starts, strict=True)
        ]
        decoded = decode_frames(path, np.concatenate(spans))
        ends = np.cumsum([len(span) for span in spans])[:-1]
        frames.update(zip(numbers, np.split(decoded, ends), strict=True))
    return frames
