"""Episodes on a toy simulator: outcomes, errors, resuming, workers, videos."""

import logging
import multiprocessing
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np
import pytest

from invact_vla.errors import UserError
from invact_vla.training import run_folder
from invact_vla.training.files import read_json
from libero_eval import gl, rollout
from libero_eval.assets.pack import AssetPack
from libero_eval.episode import run_episode
from libero_eval.film import Film
from libero_eval.policies import NoopPolicy, RandomPolicy
from libero_eval.results import EpisodeLog, EpisodeRow, read_episodes
from libero_eval.rollout import (
    RolloutConfig,
    VideoConfig,
    film_successes,
    find_video,
    jobs_of,
    protocol_of,
    roll_out,
    summary_of,
)
from libero_eval.workers import Job
from tests.libero_eval.point_sim import (
    LABELS,
    PointSim,
    Walker,
    WalkerConfig,
    make_runner,
    open_point_sim,
)

JOBS = [Job(task, init) for task in (0, 1, 2) for init in range(4)]


def rows_of(folder: Path, **options: object) -> list[EpisodeRow]:
    roll_out(make_runner(folder), JOBS, workers=0, max_errors=1, **options)  # type: ignore[arg-type]
    return [row.without_time() for row in read_episodes(folder)]


def test_success_failure_and_what_is_recorded() -> None:
    sim = PointSim(2)
    row = run_episode(sim, Walker(""), 1, LABELS)
    assert row.outcome == "success" and row.reason == "goal reached" and 9 < row.steps <= 12
    assert (row.goals_met, row.goals_total, row.closest_m is not None) == (1, 1, True)
    assert row.episode == ("libero_10", 2, 1) and row.protocol == "libero_10/point"
    idle = run_episode(sim, NoopPolicy(), 1, LABELS)
    assert (idle.outcome, idle.steps, idle.goals_met) == ("failure", 12, 0)
    assert idle.closest_m == pytest.approx(0.99) and "12 steps" in idle.reason


def test_chunks_run_open_loop_and_only_read_frames_are_rendered(tmp_path: Path) -> None:
    sim, policy = PointSim(0), Walker("", chunk=4)
    row = run_episode(sim, policy, 0, LABELS)
    assert policy.calls == sim.rendered == -(-row.steps // 4)
    sim = PointSim(0)
    run_episode(sim, NoopPolicy(), 0, LABELS)
    assert sim.rendered == 0
    film = Film(tmp_path / "a.mp4", "go", stride=4, size_px=32)
    run_episode(sim, NoopPolicy(), 0, LABELS, film=film)
    assert sim.rendered == 12 // 4 + 1


def test_an_exception_is_an_error_and_never_a_failure() -> None:
    row = run_episode(PointSim(0), Walker("raise"), 2, LABELS)
    assert row.outcome == "error" and "RuntimeError: lost <the> way" in row.reason
    assert "Traceback" in row.reason and row.state_hash == ""
    row = run_episode(PointSim(0), Walker("nan"), 0, LABELS)
    assert row.outcome == "error" and "NaN" in row.reason


def test_seeds_differ_by_episode_and_not_by_order() -> None:
    policy, sim = RandomPolicy(1), PointSim(0)
    first = [run_episode(sim, policy, i, LABELS) for i in (0, 1, 2)]
    again = [run_episode(sim, policy, i, LABELS) for i in (2, 0, 1)]
    assert [first[2], first[0], first[1]] == [
        EpisodeRow(**{**row.__dict__, "wall_s": first[(2, 0, 1)[n]].wall_s})
        for n, row in enumerate(again)
    ]
    assert len({row.state_hash for row in first}) == 3


def test_resumed_after_any_cut_gives_the_same_rows(tmp_path: Path) -> None:
    whole = rows_of(tmp_path / "whole")
    assert len(whole) == len(JOBS)
    for cut in (1, 500, 2500):
        folder = tmp_path / str(cut)
        rows_of(folder)
        path = folder / "episodes.jsonl"
        path.write_bytes(path.read_bytes()[:-cut])
        assert rows_of(folder) == whole


def test_workers_and_order_change_nothing(tmp_path: Path) -> None:
    serial = rows_of(tmp_path / "serial")
    roll_out(make_runner(tmp_path / "two"), JOBS, workers=2, max_errors=1)
    roll_out(make_runner(tmp_path / "back"), JOBS[::-1], workers=0, max_errors=1)
    for name in ("two", "back"):
        assert [r.without_time() for r in read_episodes(tmp_path / name)] == serial


def test_a_killed_worker_costs_one_retry(tmp_path: Path) -> None:
    policy = WalkerConfig(fault="die", marker=tmp_path / "marker")
    rows = roll_out(make_runner(tmp_path / "a", policy), JOBS[:4], workers=1, max_errors=1)
    assert [row.outcome for row in rows] == ["success"] * 4


def test_a_worker_killed_twice_leaves_an_error_row(tmp_path: Path) -> None:
    make = make_runner(tmp_path, WalkerConfig(fault="die"))
    rows = roll_out(make, JOBS[:4], workers=2, max_errors=9)
    assert [row.outcome for row in rows] == ["success", "success", "error", "success"]
    assert "died twice" in rows[2].reason and "-9" in rows[2].reason
    assert summary_of(rows)["rate"] is None
    repaired = roll_out(make_runner(tmp_path), JOBS[:4], workers=0, max_errors=9)
    assert [row.outcome for row in repaired] == ["success"] * 4


def test_stopping_early_ends_the_workers_and_keeps_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(log: EpisodeLog, row: EpisodeRow) -> None:
        append(log, row)
        raise KeyboardInterrupt

    append = EpisodeLog.append
    monkeypatch.setattr(EpisodeLog, "append", interrupted)
    with pytest.raises(KeyboardInterrupt):
        roll_out(make_runner(tmp_path), JOBS, workers=1, max_errors=1)
    assert not multiprocessing.active_children()
    assert len(read_episodes(tmp_path)) == 1


def test_workers_that_cannot_start_are_an_error_of_the_run(tmp_path: Path) -> None:
    make = make_runner(tmp_path, WalkerConfig(fault="start"))
    with pytest.raises(UserError, match="exit code 7"):
        roll_out(make, JOBS, workers=1, max_errors=1)


def test_too_many_errors_stop_the_run_and_keep_its_rows(tmp_path: Path) -> None:
    make = make_runner(tmp_path, WalkerConfig(fault="raise"))
    with pytest.raises(UserError, match=r"2 episodes ended as errors.*task 1.*lost <the> way"):
        roll_out(make, JOBS, workers=0, max_errors=2)
    assert [row.outcome for row in read_episodes(tmp_path)].count("success") == 5


def test_film_shows_the_episode_and_a_first_success_is_filmed_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    videos = VideoConfig(per_task=1, stride=1, size_px=64)
    make = make_runner(tmp_path, videos=videos)
    jobs = [Job(0, 0, film=True), Job(1, 3)]
    rows = roll_out(make, jobs, workers=0, max_errors=1)
    assert rows[0].video == "videos/task00_init000.mp4" and rows[1].video is None
    assert find_video(tmp_path, rows[1]) is None
    with caplog.at_level(logging.WARNING):
        film_successes(make, rows, workers=0)
    assert not caplog.records
    video = find_video(tmp_path, rows[1])
    assert video is not None and video.stat().st_size < 40_000
    with av.open(str(video)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == rows[1].steps + 1 + 30 and frames[0].shape[1] == 64
    assert np.abs(frames[0].astype(int) - frames[-1]).max() > 80


def test_a_replay_that_ends_otherwise_is_not_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make = make_runner(tmp_path)
    rows = roll_out(make, [Job(0, 0)], workers=0, max_errors=1)
    film_successes(make, [EpisodeRow(**{**rows[0].__dict__, "state_hash": "x"})], workers=0)
    assert "ended otherwise" in caplog.text and find_video(tmp_path, rows[0]) is None


def test_config_lists_episodes_and_names_deviations(tmp_path: Path) -> None:
    config = RolloutConfig(
        out=tmp_path, policy=WalkerConfig(), tasks=(4, 0), episodes=2, max_steps=100, first_init=5
    )
    assert [(job.task_id, job.init_index, job.film) for job in jobs_of(config)] == [
        (4, 5, True), (4, 6, False), (0, 5, True), (0, 6, False),
    ]  # fmt: skip
    protocol = protocol_of(config)
    assert protocol.key == "libero_10/openvla, max_steps 100" and protocol.max_steps == 100
    standard = RolloutConfig(out=tmp_path, policy=WalkerConfig(), max_steps=520)
    assert protocol_of(standard).key == "libero_10/openvla"
    assert len(jobs_of(standard)) == 500
    for bad in ({"tasks": (10,)}, {"tasks": (1, 1)}):
        with pytest.raises(UserError):
            jobs_of(RolloutConfig(out=tmp_path, policy=WalkerConfig(), **bad))  # type: ignore[arg-type]


@AssetPack.register_subclass("blank")
@dataclass(frozen=True, kw_only=True)
class BlankPack(AssetPack):
    """An empty assets folder."""

    folder: Path

    def build(self) -> Path:
        self.folder.mkdir(exist_ok=True)
        return self.folder


def config_of(tmp_path: Path, **options: object) -> RolloutConfig:
    return RolloutConfig(
        out=tmp_path / "run", assets=BlankPack(folder=tmp_path / "blank"), tasks=(0, 1),
        episodes=4, max_steps=12, **options,  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.fixture
def toy_world(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout, "OpenLibero", lambda *_: open_point_sim)
    monkeypatch.setattr(gl, "probe", lambda: "egl")
    # held until the process ends, and here one process plays the killed run and its successor
    monkeypatch.setattr(run_folder, "_lock", lambda folder: None)


@pytest.mark.usefixtures("toy_world")
def test_a_finished_run_is_skipped_and_its_key_names_what_matters(tmp_path: Path) -> None:
    config = config_of(tmp_path, policy=WalkerConfig())
    folder = rollout.main(config)
    content = (folder / "episodes.jsonl").read_bytes()
    summary = read_json(folder / "summary.json")
    assert (summary["k"], summary["n"], summary["tasks"]["1"]) == (8, 8, {"success": 4})
    assert read_json(folder / "manifest.json")["packages"]["mujoco"]
    assert len(list((folder / "videos").iterdir())) == 2
    assert rollout.main(replace(config, workers=2)) == folder
    assert (folder / "episodes.jsonl").read_bytes() == content
    with pytest.raises(UserError, match="another config"):
        rollout.main(replace(config, seed=1))


@pytest.mark.usefixtures("toy_world")
def test_a_run_with_errors_is_not_finished_and_goes_on_later(tmp_path: Path) -> None:
    marker = tmp_path / "repaired"
    config = config_of(tmp_path, policy=WalkerConfig(fault="raise", marker=marker))
    with pytest.raises(UserError, match="2 of 8 episodes ended as errors"):
        rollout.main(config)
    assert not (tmp_path / "run" / "done.json").exists()
    assert read_json(tmp_path / "run" / "summary.json")["rate"] is None
    marker.touch()
    folder = rollout.main(config)
    assert (folder / "done.json").exists()
    lines = (folder / "episodes.jsonl").read_text().splitlines()
    assert len(read_episodes(folder)) == 8 and len(lines) == 8 + 2 + 2
