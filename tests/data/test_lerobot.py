"""LeRobot v3 data sets: theirs are read, ours are read back, and bad ones are refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from invact_vla.core.errors import UserError
from invact_vla.data.dataset import DatasetConfig, RobotEpisode
from invact_vla.data.readers import open_dataset
from invact_vla.data.readers.lerobot import AGENTVIEW
from invact_vla.data.readers.lerobot_meta import INFO, is_lerobot
from invact_vla.data.readers.lerobot_writer import write_lerobot
from tests.data.demos import whole
from tests.paths import GOLDEN, needs_golden


def episode(seed: int, length: int, instruction: str, wrist: bool = True) -> RobotEpisode:
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 200, 32)[None, :, None, None] + rng.integers(0, 50, (length, 1, 1, 3))
    frames = np.broadcast_to(ramp, (length, 32, 32, 3)).astype(np.uint8)
    actions = rng.uniform(-1, 1, (length, 7))
    actions[:, 6] = rng.integers(0, 2, length)
    state = rng.normal(size=(length, 8)).astype(np.float32)
    return RobotEpisode(
        "demo", instruction, frames, frames[:, ::-1] if wrist else None, state, actions
    )


@pytest.fixture(scope="module")
def episodes() -> list[RobotEpisode]:
    return [episode(0, 5, "open it"), episode(1, 7, "close it"), episode(2, 4, "open it")]


@pytest.fixture(scope="module")
def folder(episodes: list[RobotEpisode], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lerobot") / "data"
    write_lerobot(path, iter(episodes))
    return path


def test_round_trip(folder: Path, episodes: list[RobotEpisode]) -> None:
    assert is_lerobot(folder) and not is_lerobot(folder / "meta")
    read = whole(folder, wrist=True)
    assert [e.instruction for e in read] == ["open it", "close it", "open it"]
    for ours, theirs in zip(episodes, read, strict=True):
        np.testing.assert_allclose(theirs.actions, ours.actions, atol=1e-7)
        np.testing.assert_array_equal(theirs.state, ours.state)
        assert ours.wrist is not None and theirs.wrist is not None
        for a, b in ((ours.agentview, theirs.agentview), (ours.wrist, theirs.wrist)):
            assert a.shape == b.shape and np.abs(a.astype(int) - b).mean() < 6


def test_metadata(folder: Path, episodes: list[RobotEpisode]) -> None:
    info = json.loads((folder / INFO).read_text())
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (3, 16, 2)
    statistics = json.loads((folder / "meta/stats.json").read_text())
    actions = np.concatenate([e.actions for e in episodes]).astype(np.float32)
    np.testing.assert_allclose(
        statistics["action"]["q99"][:6], np.quantile(actions[:, :6], 0.99, 0)
    )
    assert statistics["action"]["min"][6] == -1 and statistics["action"]["max"][6] == 1
    assert np.shape(statistics[AGENTVIEW]["mean"]) == (3, 1, 1)
    tasks = pq.read_table(folder / "meta/tasks.parquet")
    assert tasks.column("task").to_pylist() == ["open it", "close it"]
    pandas = json.loads((tasks.schema.metadata or {})[b"pandas"])
    assert pandas["index_columns"] == ["task"], "looked up by text"


@needs_golden
def test_same_layout_as_theirs(folder: Path) -> None:
    """Every file, column, type and statistic that LeRobot writes, and no other."""
    assert GOLDEN is not None
    theirs = GOLDEN / "lerobot_v3_tiny"
    for name in ("data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet",
                 "meta/tasks.parquet"):  # fmt: skip
        ours, expected = pq.read_schema(folder / name), pq.read_schema(theirs / name)
        assert {f.name: f.type for f in ours} == {f.name: f.type for f in expected}, name
    ours, expected = (json.loads((f / INFO).read_text()) for f in (folder, theirs))
    assert ours.keys() == expected.keys() and ours["features"].keys() == expected["features"].keys()
    ours, expected = (json.loads((f / "meta/stats.json").read_text()) for f in (folder, theirs))
    assert {k: set(v) for k, v in ours.items()} == {k: set(v) for k, v in expected.items()}


@needs_golden
def test_theirs_is_read() -> None:
    assert GOLDEN is not None
    read = whole(GOLDEN / "lerobot_v3_tiny", wrist=True)
    assert [len(e.actions) for e in read] == [12, 16]
    stored = np.load(GOLDEN / "lerobot_v3_tiny_actions.npy")
    actions = np.concatenate([e.actions for e in read])
    np.testing.assert_allclose(actions[:, :6], stored[:, :6], atol=1e-7)
    np.testing.assert_array_equal(actions[:, 6], np.where(stored[:, 6] < 0, 1.0, 0.0))
    assert all(e.agentview.shape == (len(e.actions), 128, 128, 3) for e in read)
    stats = json.loads((GOLDEN / "lerobot_v3_tiny/meta/stats.json").read_text())[AGENTVIEW]
    pixels = np.concatenate([e.agentview for e in read]) / 255
    np.testing.assert_allclose(pixels.mean((0, 1, 2)), np.ravel(stats["mean"]), atol=0.02)


def test_bad_data_sets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no LeRobot data set"):
        open_dataset(DatasetConfig(path=tmp_path, format="lerobot"))
    with pytest.raises(UserError, match="at least one"):
        write_lerobot(tmp_path / "empty", [])
    big = replace(episode(0, 2, "x"), agentview=np.zeros((2, 64, 64, 3), np.uint8))
    with pytest.raises(UserError, match="frames of"):
        write_lerobot(tmp_path / "mixed", [episode(0, 2, "x"), big])
    assert not (tmp_path / "mixed").exists() and not (tmp_path / "empty").exists()


def test_one_camera(tmp_path: Path) -> None:
    write_lerobot(tmp_path / "data", [episode(0, 5, "x", wrist=False)])
    assert whole(tmp_path / "data")[0].wrist is None
