"""LeRobot data sets as people have them: two versions, videos or PNG, damaged and incomplete ones."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from invact_vla.core.errors import UserError
from invact_vla.data.dataset import DatasetConfig
from invact_vla.data.readers import open_dataset
from invact_vla.data.readers.lerobot import AGENTVIEW
from invact_vla.data.readers.lerobot_meta import INFO
from invact_vla.data.readers.lerobot_writer import write_lerobot
from invact_vla.data.stored_dataset import StoredDataset
from invact_vla.data.video.video_io import write_video
from tests.data.test_lerobot import episode
from tests.paths import GOLDEN, needs_golden

LENGTHS = (5, 7, 4)
DATA = "data/chunk-000/file-000.parquet"
TASKS = "meta/tasks.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
EPISODES_OURS = [episode(i, n, f"open drawer {i % 2}") for i, n in enumerate(LENGTHS)]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("v3") / "data"
    write_lerobot(path, EPISODES_OURS)
    return path


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(original, tmp_path / "data"))


def opened(path: Path, **options: Any) -> StoredDataset:
    return open_dataset(DatasetConfig(path=path, **options))


def change_info(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    info = json.loads((folder / INFO).read_text())
    change(info)
    (folder / INFO).write_text(json.dumps(info))


def change_table(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    table = change(pq.read_table(path))
    path.unlink()  # it may be mapped by a reader
    pq.write_table(table, path)


def set_gripper(folder: Path, values: Callable[[np.ndarray], np.ndarray]) -> None:
    def change(table: pa.Table) -> pa.Table:
        actions = np.array(table.column("action").to_pylist())
        actions[:, 6] = values(actions[:, 6])
        return table.drop_columns("action").append_column("action", pa.array(actions.tolist()))

    change_table(folder / DATA, change)


def png(frame: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "PNG")
    return buffer.getvalue()


def picture_column(frames: np.ndarray) -> pa.Array:
    return pa.array([{"bytes": png(frame), "path": f"{i}.png"} for i, frame in enumerate(frames)])


def with_png(folder: Path) -> Path:
    """Pictures in the parquet file instead of the videos, in row groups that cut episodes."""
    frames = np.concatenate([e.agentview for e in EPISODES_OURS])
    table = pq.read_table(folder / DATA).append_column(AGENTVIEW, picture_column(frames))
    (folder / DATA).unlink()
    pq.write_table(table, folder / DATA, row_group_size=3)
    shutil.rmtree(folder / "videos")

    def change(info: dict[str, Any]) -> None:
        info["features"][AGENTVIEW]["dtype"] = "image"
        del info["features"][f"{AGENTVIEW}2"]
        del info["fps"]

    change_info(folder, change)
    return folder


def version_2(folder: Path, pictures: str) -> Path:
    """The same data in the layout of v2.1, with the keys that openpi uses."""
    features: dict[str, Any] = {
        "image": {"dtype": pictures, "shape": [32, 32, 3]},
        "state": {"dtype": "float32", "shape": [8]},
        "actions": {"dtype": "float32", "shape": [7]},
    }
    meta, rows = folder / "meta", []
    meta.mkdir(parents=True)
    for i, own in enumerate(EPISODES_OURS):
        actions = own.actions.copy()
        actions[:, 6] = 1 - 2 * actions[:, 6]
        columns: dict[str, Any] = {
            "actions": actions.astype(np.float32).tolist(), "state": own.state.tolist(),
            "task_index": [i % 2] * len(actions), "episode_index": [i] * len(actions),
            "index": list(range(len(actions))),
        }  # fmt: skip
        if pictures == "image":
            columns["image"] = picture_column(own.agentview)
        else:
            path = folder / f"videos/chunk-000/image/episode_{i:06d}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_video(path, own.agentview, 10)
        path = folder / f"data/chunk-000/episode_{i:06d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), path)
        rows.append({"episode_index": i, "tasks": [own.instruction], "length": len(actions)})
    (meta / "episodes.jsonl").write_text("\n".join(map(json.dumps, rows)))
    tasks = [{"task_index": i, "task": f"open drawer {i}"} for i in range(2)]
    (meta / "tasks.jsonl").write_text("\n".join(map(json.dumps, tasks)))
    (folder / INFO).write_text(json.dumps({"codebase_version": "v2.1", "features": features}))
    return folder


def same_as_ours(dataset: StoredDataset, exact: bool) -> None:
    assert [e.length for e in dataset.episodes] == list(LENGTHS)
    assert [e.instruction for e in dataset.episodes] == [e.instruction for e in EPISODES_OURS]
    for i, own in enumerate(EPISODES_OURS):
        numbers, frames = dataset.numbers(i), dataset.frames(i, "agentview")
        np.testing.assert_allclose(numbers.actions, own.actions, atol=1e-6)
        np.testing.assert_array_equal(numbers.state, own.state)
        gap = np.abs(frames.astype(int) - own.agentview)
        assert gap.max() == 0 if exact else gap.mean() < 6


def test_videos(original: Path) -> None:
    dataset = opened(original)
    same_as_ours(dataset, exact=False)
    assert dataset.cameras == ("agentview", "wrist")
    assert dataset.action_mask == (True,) * 6 + (False,)


def test_png_in_parquet(folder: Path) -> None:
    same_as_ours(opened(with_png(folder)), exact=True)


@pytest.mark.parametrize("pictures", ["image", "video"])
def test_version_2(pictures: str, tmp_path: Path) -> None:
    same_as_ours(opened(version_2(tmp_path / "v2", pictures)), exact=pictures == "image")
    (tmp_path / "v2/data/chunk-000/episode_000001.parquet").unlink()
    with pytest.raises(UserError, match=r"no file .*episode_000001\.parquet"):
        opened(tmp_path / "v2").numbers(1)


@needs_golden
def test_golden_frames_are_those_of_the_whole_video() -> None:
    """Jumping to an episode in the middle of a video gives the frames of decoding it all."""
    from invact_vla.data.video.frames import decode_all

    assert GOLDEN is not None
    dataset = opened(GOLDEN / "lerobot_v3_tiny")
    for camera, name in (("agentview", "image"), ("wrist", "image2")):
        path = f"lerobot_v3_tiny/videos/observation.images.{name}/chunk-000/file-000.mp4"
        frames = np.concatenate([dataset.frames(i, camera) for i in range(2)])
        np.testing.assert_array_equal(frames, decode_all(GOLDEN / path))
    stored = np.load(GOLDEN / "lerobot_v3_tiny_actions.npy").astype(np.float64)
    actions = np.concatenate([dataset.numbers(i).actions for i in range(2)])
    np.testing.assert_array_equal(actions[:, :6], stored[:, :6])
    np.testing.assert_array_equal(actions[:, 6], (1 - stored[:, 6]) / 2)


@pytest.mark.parametrize("name", ["__index_level_0__", "task", "text"])
def test_words_in_an_index_without_a_name(name: str, folder: Path) -> None:
    """Where the episodes do not name their tasks, too."""
    change_table(folder / TASKS, lambda t: t.rename_columns(["task_index", name]))
    same_as_ours(opened(folder), exact=False)
    change_table(folder / EPISODES, lambda t: t.drop_columns("tasks"))
    same_as_ours(opened(folder), exact=False)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"task_index": [0, 1, 1], "task": ["open it", "close it", "turn it"]}, "task_index 1 is both"),
        ({"task_index": [0, 1], "kind": ["k", "k"], "said": ["a", "b"]}, "a column of words"),
        ({"task": ["open it", "close it"]}, "lacks task_index"),
        ({"task_index": [0, 1], "task": [3, 4]}, "a column of words"),
        ({"task_index": [0, 2], "task": ["open it", "close it"]}, "no words for episode 1"),
    ],
)  # fmt: skip
def test_words_that_cannot_be_told(columns: dict, message: str, folder: Path) -> None:
    pq.write_table(pa.table(columns), folder / TASKS)
    change_table(folder / EPISODES, lambda t: t.drop_columns("tasks"))
    with pytest.raises(UserError, match=message):
        opened(folder)


@pytest.mark.parametrize("task", [["open it"], 7, {"a": 1}, None, "turn it"])
def test_words_of_version_2(task: object, tmp_path: Path) -> None:
    """A list of words means the first; numbers, nothing, and two tasks of one index are none."""
    folder = version_2(tmp_path / "v2", "image")
    rows = [{"episode_index": i, "length": n} for i, n in enumerate(LENGTHS)]
    (folder / "meta/episodes.jsonl").write_text("\n".join(map(json.dumps, rows)))
    tasks = [{"task_index": 0, "task": task}, {"task_index": 1, "task": "close it"}]
    tasks += [{"task_index": 0, "task": "open it"}] * (task == "turn it")
    (folder / "meta/tasks.jsonl").write_text("\n".join(map(json.dumps, tasks)))
    if isinstance(task, list):
        assert [e.instruction for e in opened(folder).episodes] == [
            "open it",
            "close it",
            "open it",
        ]
    else:
        message = (
            "is both 'turn it' and 'open it'" if task == "turn it" else "no words for episode 0"
        )
        with pytest.raises(UserError, match=message):
            opened(folder)


def change_column(folder: Path, file: str, name: str, values: list[Any]) -> None:
    change_table(folder / file, lambda t: t.set_column(t.column_names.index(name), name, [values]))


def test_episodes_that_are_listed_twice_or_not_at_all(folder: Path, tmp_path: Path) -> None:
    change_column(folder, EPISODES, "episode_index", [0, 0, 2])
    with pytest.raises(UserError, match="meta lists episode 0 twice"):
        opened(folder)
    change_table(folder / EPISODES, lambda t: t.slice(1))
    with pytest.raises(UserError, match=r"meta lists 2 episodes, meta/info\.json counts 3"):
        opened(folder)
    version_2(tmp_path / "v2", "image")
    path = tmp_path / "v2/meta/episodes.jsonl"
    path.write_text(path.read_text() + "\n" + path.read_text().splitlines()[1])
    with pytest.raises(UserError, match="meta lists episode 1 twice"):
        opened(tmp_path / "v2")
    path.unlink()
    with pytest.raises(UserError, match=r"episodes\.jsonl: the data set is incomplete"):
        opened(tmp_path / "v2")


def test_rows_that_do_not_fit(folder: Path) -> None:
    index = pq.read_table(folder / DATA).column("frame_index").to_pylist()
    change_column(folder, DATA, "frame_index", [index[1], *index[1:]])
    with pytest.raises(UserError, match="rows of episode 0 have the same frame_index"):
        opened(folder).numbers(0)
    change_column(folder, DATA, "frame_index", index)
    change_column(folder, EPISODES, "length", [5, 6, 4])
    with pytest.raises(UserError, match="episode 1 should have 6 rows, there are 1 more"):
        opened(folder, gripper="open_is_minus_one").numbers(1)
    change_column(folder, EPISODES, "length", list(LENGTHS))
    change_info(folder, lambda i: i["features"]["observation.state"].update(shape=[6]))
    with pytest.raises(UserError, match="state of 8 numbers, expected 6"):
        opened(folder, gripper="open_is_minus_one").numbers(0)
    state = [[0.0] * (5 if i == 2 else 8) for i in range(len(index))]
    change_column(folder, DATA, "observation.state", state)
    with pytest.raises(UserError, match=r"file-000\.parquet: observation\.state cannot be read"):
        opened(folder).numbers(0)
    state = [None if i == 2 else [0.0] * 8 for i in range(len(index))]
    change_column(folder, DATA, "observation.state", state)
    with pytest.raises(UserError, match=r"cannot be read .some rows hold none"):
        opened(folder).numbers(0)


def change_rows(folder: Path, rows: list[int], episode: int = 1, renumbered: bool = False) -> None:
    """Some rows of an episode of version 2, with the frame_index that they had, or a new one."""
    path = folder / f"data/chunk-000/episode_{episode:06d}.parquet"

    def change(table: pa.Table) -> pa.Table:
        numbers = pa.array(range(len(rows)) if renumbered else rows, pa.int64())
        taken = table.take(pa.array(rows, pa.int64())).drop_columns("index")
        return taken.append_column("frame_index", numbers)

    change_table(path, change)
    path = folder / "meta/episodes.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[episode]["length"] = len(rows)
    path.write_text("\n".join(map(json.dumps, lines)))


def test_rows_in_another_order(tmp_path: Path) -> None:
    for pictures in ("image", "video"):
        folder = version_2(tmp_path / pictures, pictures)
        change_rows(folder, [3, 1, 0, 2, 6, 5, 4])
        same_as_ours(opened(folder), exact=pictures == "image")


@pytest.mark.parametrize("renumbered", [False, True])
def test_rows_taken_out_of_an_episode(renumbered: bool, tmp_path: Path) -> None:
    """Pictures in the rows go with them; which of a video's frames belong to those left is unknown."""
    kept = [0, 2, 3, 6]
    folder = version_2(tmp_path / "image", "image")
    change_rows(folder, kept, renumbered=renumbered)
    frames = opened(folder).frames(1, "agentview")
    np.testing.assert_array_equal(frames, EPISODES_OURS[1].agentview[kept])
    folder = version_2(tmp_path / "video", "video")
    change_rows(folder, kept, renumbered=renumbered)
    with pytest.raises(UserError, match=r"episode_000001\.mp4: .*for 4 rows of episode 1"):
        opened(folder).frames(1, "agentview")
    opened(folder).frames(0, "agentview")


@pytest.mark.parametrize("pictures", ["image", "video"])
def test_an_episode_without_rows(pictures: str, tmp_path: Path) -> None:
    folder = version_2(tmp_path / pictures, pictures)
    change_rows(folder, [])
    with pytest.raises(UserError, match="episode_1: no steps"):
        opened(folder).frames(1, "agentview")


def test_words_with_line_separators_and_several_tasks(tmp_path: Path) -> None:
    folder = version_2(tmp_path, "image")
    path = folder / "meta/episodes.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[0]["tasks"] = ["\u00f6ffne\u2028die Schublade\x85"]
    lines[1]["tasks"] = ["open drawer 0", "open drawer 1"]  # its rows say which
    path.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), "utf-8")
    words = [e.instruction for e in opened(folder).episodes]
    assert words == ["\u00f6ffne die Schublade", "open drawer 1", "open drawer 0"]
    rows = folder / "data/chunk-000/episode_000001.parquet"
    change_column(folder, str(rows.relative_to(folder)), "task_index", [0, 0, 0, 1, 1, 1, 1])
    with pytest.raises(UserError, match=r"episode 1, or several \(task_index \[0, 1\]"):
        opened(folder)


@pytest.mark.parametrize("names", ["motor_{}", "{}", "action.{}", "joint_{}"])
def test_numbered_names_say_nothing_of_a_gripper(names: str, folder: Path) -> None:
    given = {"motors": [names.format(i) for i in range(7)]}
    change_info(folder, lambda i: i["features"]["action"].update(names=given))
    assert opened(folder).action_mask[-1] == (names == "joint_{}")


@pytest.mark.parametrize("dtype", ["float32", None])
def test_the_wrist_camera_is_not_taken_for_the_other(dtype: object, folder: Path) -> None:
    change_info(folder, lambda i: i["features"][AGENTVIEW].update(dtype=dtype))
    with pytest.raises(UserError, match="which of its pictures"):
        opened(folder)


@pytest.mark.parametrize("file", [DATA, TASKS, EPISODES])
def test_pointers_of_git_lfs(file: str, folder: Path) -> None:
    (folder / file).unlink()
    (folder / file).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(UserError, match=r"git-lfs text pointer, not the data: run `git lfs pull`"):
        opened(folder).numbers(0)


def test_pointers_of_videos(folder: Path) -> None:
    for path in (folder / "videos").rglob("*.mp4"):
        path.write_text("version https://git-lfs.github.com/spec/v1\n")
    dataset = opened(folder)
    dataset.numbers(0)
    with pytest.raises(UserError, match="git-lfs text pointer"):
        dataset.frames(0, "agentview")


def drop_fps(info: dict[str, Any]) -> None:
    del info["fps"]
    for feature in info["features"].values():
        feature.pop("info", None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i: i.pop("features"), "lacks features"),
        (lambda i: i.pop("codebase_version"), "lacks codebase_version"),
        (lambda i: i.update(codebase_version="v1.6"), "is LeRobot format v1.6, expected"),
        (lambda i: i.update(features={"action": 7}), "features must say a dtype and a shape"),
        (lambda i: i.update(data_path="{episode}/x"), "data_path .* cannot be filled in"),
        (lambda i: i["features"].pop("action"), r"no action action, it has .*--data\.action KEY"),
        (lambda i: i["features"]["action"].update(shape=[2, 2]), "expected .numbers."),
    ],
)
def test_info_that_lacks_something(
    change: Callable[[dict[str, Any]], object], message: str, folder: Path
) -> None:
    change_info(folder, change)
    with pytest.raises(UserError, match=message):
        opened(folder)


def test_fps(folder: Path) -> None:
    """Only an episode in the middle of a video needs it."""
    change_info(folder, drop_fps)
    same_as_ours(opened(folder), exact=False)
    key = f"videos/{AGENTVIEW}/from_timestamp"
    times = pa.array([0.0, 0.25, 0.5])
    change_table(folder / EPISODES, lambda t: t.drop_columns(key).append_column(key, times))
    with pytest.raises(UserError, match="lacks fps"):
        opened(folder)
    change_info(folder, lambda i: i.update(fps="20"))
    with pytest.raises(UserError, match="has fps '20', expected a number"):
        opened(folder)


def test_rows_that_are_missing(folder: Path) -> None:
    change_table(folder / DATA, lambda t: t.slice(0, 14))
    dataset = opened(folder, gripper="open_is_minus_one")
    with pytest.raises(UserError, match="episode 2 should have 4 rows, 2 are missing"):
        dataset.numbers(2)
    with pytest.raises(UserError, match="incomplete"):
        shutil.rmtree(folder / "meta/episodes")
        opened(folder)


def test_a_video_that_is_too_short(folder: Path) -> None:
    path = folder / f"videos/{AGENTVIEW}/chunk-000/file-001.mp4"
    write_video(path, EPISODES_OURS[1].agentview[:4], 20)
    with pytest.raises(UserError, match=r"file-001\.mp4 ends after 4 frames, frame 6 was wanted"):
        opened(folder).frames(1, "agentview")


def test_cameras_by_other_names(folder: Path) -> None:
    names = {AGENTVIEW: "observation.images.scene", f"{AGENTVIEW}2": "observation.images.hand_eye"}

    def rename(info: dict[str, Any]) -> None:
        info["features"] = {names.get(k, k): f for k, f in info["features"].items()}

    change_info(folder, rename)
    change_table(folder / EPISODES, lambda t: t.rename_columns(
        ["/".join(names.get(p, p) for p in c.split("/")) for c in t.column_names]))  # fmt: skip
    for old, new in names.items():
        (folder / "videos" / old).rename(folder / "videos" / new)
    same_as_ours(opened(folder), exact=False)
    swapped = opened(folder, cameras={"agentview": "observation.images.hand_eye"})
    assert swapped.cameras == ("agentview",)
    with pytest.raises(UserError, match=r"no pictures left, it has .*correct --data\.cameras"):
        opened(folder, cameras={"agentview": "left"})
    names = {"observation.images.hand_eye": "observation.images.other"}
    change_info(folder, rename)
    with pytest.raises(UserError, match="which of its pictures"):
        opened(folder)


def test_grippers(folder: Path) -> None:
    """0.98/0.02 and always 1 cannot be told here; the option decides."""
    set_gripper(folder, lambda g: 0.5 - 0.48 * g)
    with pytest.raises(UserError, match=r"in \[0\.02, 0\.98\].*--data\.gripper open_is_one"):
        opened(folder).numbers(0)
    for i, own in enumerate(EPISODES_OURS):
        actions = opened(folder, gripper="open_is_one").numbers(i).actions
        np.testing.assert_array_equal(actions[:, 6], own.actions[:, 6])
    set_gripper(folder, np.ones_like)
    with pytest.raises(UserError, match="always 1"):
        opened(folder).numbers(0)


def test_nan_and_null(folder: Path) -> None:
    set_gripper(folder, lambda g: np.where(np.arange(len(g)) == 6, np.nan, g))
    with pytest.raises(UserError, match=r"episode_1: action 6 of step 1 is nan"):
        opened(folder).numbers(0)


def test_max_demos_reads_no_other_files(tmp_path: Path) -> None:
    folder = version_2(tmp_path / "v2", "image")
    for path in sorted((folder / "data").rglob("*.parquet"))[2:]:
        path.unlink()
    dataset = opened(folder, max_demos=1)
    assert [e.name for e in dataset.episodes] == ["episode_0", "episode_1"]
    for i in range(2):
        dataset.numbers(i), dataset.frames(i, "agentview")
