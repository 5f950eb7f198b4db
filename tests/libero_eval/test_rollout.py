"""Episodes on a toy simulator: outcomes, errors, resuming, workers, videos."""

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import psutil
import pytest

from invact_vla.core.errors import UserError
from libero_eval.executors import Executor, ProcessesConfig, SerialConfig
from libero_eval.policies import NoopPolicy, RandomPolicy
from libero_eval.results.rows import EpisodeLog, EpisodeRow, read_episodes
from libero_eval.rollout.command import (
    find_video,
    record_success_videos,
    roll_out,
    summary_of,
)
from libero_eval.rollout.episode import Job, run_episode
from libero_eval.rollout.episode_video import EpisodeVideo, VideoConfig
from tests.libero_eval.point_sim import (
    LABELS,
    PointSim,
    Walker,
    WalkerConfig,
    make_runner,
)
from tests.paths import REPOSITORY

HERE = SerialConfig().build()
JOBS = [Job(task, init) for task in (0, 1, 2) for init in range(4)]


def workers(count: int) -> Executor:
    return ProcessesConfig(workers=count).build()


def rows_of(folder: Path, **options: object) -> list[EpisodeRow]:
    roll_out(make_runner(folder), JOBS, executor=HERE, max_errors=1, **options)  # type: ignore[arg-type]
    return [row.without_time() for row in read_episodes(folder)]


def test_success_failure_and_what_is_recorded() -> None:
    sim = PointSim(2)
    row = run_episode(sim, Walker(""), 1, LABELS)
    assert row.outcome == "success" and row.reason == "goal reached" and 9 < row.steps <= 12
    assert (row.goals_satisfied, row.goals_total, row.closest_m is not None) == (1, 1, True)
    assert row.episode == ("libero_10", 2, 1) and row.protocol == "libero_10/point"
    idle = run_episode(sim, NoopPolicy(), 1, LABELS)
    assert (idle.outcome, idle.steps, idle.goals_satisfied) == ("failure", 12, 0)
    assert idle.closest_m == pytest.approx(0.99) and "12 steps" in idle.reason


def test_chunks_run_open_loop_and_only_read_frames_are_rendered(tmp_path: Path) -> None:
    sim, policy = PointSim(0), Walker("", chunk=4)
    row = run_episode(sim, policy, 0, LABELS)
    assert policy.calls == sim.rendered == -(-row.steps // 4)
    sim = PointSim(0)
    run_episode(sim, NoopPolicy(), 0, LABELS)
    assert sim.rendered == 0
    film = EpisodeVideo(tmp_path / "a.mp4", "go", stride=4, size_px=32)
    run_episode(sim, NoopPolicy(), 0, LABELS, video=film)
    assert sim.rendered == 12 // 4 + 1


def test_an_exception_is_an_error_and_never_a_failure() -> None:
    row = run_episode(PointSim(0), Walker("raise"), 2, LABELS)
    assert row.outcome == "error" and "RuntimeError: lost <the> way" in row.reason
    assert "Traceback" in row.reason and row.state_hash == ""
    row = run_episode(PointSim(0), Walker("nan"), 0, LABELS)
    assert row.outcome == "error" and "NaN" in row.reason


def test_a_camera_that_the_protocol_does_not_show_is_refused() -> None:
    policy = Walker("")
    policy.needs = ("agentview", "wrist")
    row = run_episode(PointSim(0), policy, 0, LABELS)
    assert row.outcome == "error" and "reads the wrist camera" in row.reason


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
    roll_out(make_runner(tmp_path / "two"), JOBS, executor=workers(2), max_errors=1)
    roll_out(make_runner(tmp_path / "back"), JOBS[::-1], executor=HERE, max_errors=1)
    roll_out(make_runner(tmp_path / "three", in_flight=3), JOBS, executor=HERE, max_errors=1)
    for name in ("two", "back", "three"):
        assert [r.without_time() for r in read_episodes(tmp_path / name)] == serial


def test_a_killed_worker_costs_one_retry(tmp_path: Path) -> None:
    policy = WalkerConfig(fault="die", marker=tmp_path / "marker")
    rows = roll_out(
        make_runner(tmp_path / "a", policy), JOBS[:4], executor=workers(1), max_errors=1
    )
    assert [row.outcome for row in rows] == ["success"] * 4


def test_a_worker_killed_twice_leaves_an_error_row(tmp_path: Path) -> None:
    make = make_runner(tmp_path, WalkerConfig(fault="die"))
    rows = roll_out(make, JOBS[:4], executor=workers(2), max_errors=9)
    assert [row.outcome for row in rows] == ["success", "success", "error", "success"]
    assert "lost twice" in rows[2].reason and "-9 (SIGKILL" in rows[2].reason
    assert summary_of(rows)["rate"] is None
    repaired = roll_out(make_runner(tmp_path), JOBS[:4], executor=HERE, max_errors=9)
    assert [row.outcome for row in repaired] == ["success"] * 4


def test_stopping_early_ends_the_workers_and_keeps_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(log: EpisodeLog, row: EpisodeRow) -> None:
        append(log, row)
        raise KeyboardInterrupt

    append = EpisodeLog.append
    monkeypatch.setattr(EpisodeLog, "append", interrupted)
    others = multiprocessing.active_children()
    with pytest.raises(KeyboardInterrupt):
        roll_out(make_runner(tmp_path), JOBS, executor=workers(1), max_errors=1)
    assert set(multiprocessing.active_children()) <= set(others)
    assert len(read_episodes(tmp_path)) == 1


def test_the_first_interrupt_lets_running_episodes_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(log: EpisodeLog, row: EpisodeRow) -> None:
        append(log, row)
        if len(log.rows) == 1:
            signal.raise_signal(signal.SIGINT)

    append, before = EpisodeLog.append, signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as inside, pytest.raises(KeyboardInterrupt):
        inside.setattr(EpisodeLog, "append", interrupted)
        roll_out(make_runner(tmp_path, in_flight=2), JOBS, workers(1), max_errors=1)
    assert signal.getsignal(signal.SIGINT) is before
    assert len(read_episodes(tmp_path)) in (2, 3)
    assert len(roll_out(make_runner(tmp_path), JOBS, HERE, max_errors=1)) == len(JOBS)


INTERRUPTED = """
import sys
from pathlib import Path
from invact_vla.config.command import run
from libero_eval.rollout.command import roll_out
from tests.libero_eval.point_sim import WalkerConfig, make_runner
from tests.libero_eval.test_rollout import JOBS, workers
make = make_runner(Path(sys.argv[1]), WalkerConfig(pause_s=float(sys.argv[2])))
sys.exit(run(lambda: roll_out(make, JOBS, workers(int(sys.argv[3])), 1)))
"""


def interruptible(folder: Path, pause_s: float, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(folder), str(pause_s), str(count)],
        cwd=REPOSITORY, start_new_session=True, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_ctrl_c_while_workers_start(tmp_path: Path) -> None:
    process = interruptible(tmp_path, 0.1, 4)
    until = time.monotonic() + 60
    while len(psutil.Process(process.pid).children()) < 4:
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, messages = process.communicate(timeout=20)
    assert process.returncode == 130 and "Traceback" not in messages, messages


@pytest.mark.parametrize(("pause_s", "interrupts"), [(0.1, 1), (0.4, 2)])
def test_ctrl_c_says_how_to_go_on(tmp_path: Path, pause_s: float, interrupts: int) -> None:
    process = interruptible(tmp_path, pause_s, 2)
    log = tmp_path / "episodes.jsonl"
    until = time.monotonic() + 60
    while not log.exists() or not log.read_bytes():
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.02)
    before = len(read_episodes(tmp_path))
    for _ in range(interrupts):
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the workers get it too
        time.sleep(0.2)
    _, messages = process.communicate(timeout=20)
    assert process.returncode == 130, messages
    assert "run the same command again" in messages and "Traceback" not in messages
    after = len(read_episodes(tmp_path))
    assert before < after < len(JOBS) if interrupts == 1 else after <= before + 1


def test_workers_that_cannot_start_are_an_error_of_the_run(tmp_path: Path) -> None:
    make = make_runner(tmp_path, WalkerConfig(fault="start"))
    with pytest.raises(UserError, match="exit code 7"):
        roll_out(make, JOBS, executor=workers(1), max_errors=1)


def test_too_many_errors_stop_the_run_and_keep_its_rows(tmp_path: Path) -> None:
    make = make_runner(tmp_path, WalkerConfig(fault="raise"))
    with pytest.raises(UserError, match=r"2 episodes ended as errors.*task 1.*lost <the> way"):
        roll_out(make, JOBS, executor=HERE, max_errors=2)
    assert [row.outcome for row in read_episodes(tmp_path)].count("success") == 5


def test_film_shows_the_episode_and_a_first_success_is_filmed_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    videos = VideoConfig(per_task=1, stride=1, size_px=64)
    make = make_runner(tmp_path, videos=videos)
    jobs = [Job(0, 0, film=True), Job(1, 3)]
    rows = roll_out(make, jobs, executor=HERE, max_errors=1)
    assert rows[0].video == "videos/task00_init000.mp4" and rows[1].video is None
    assert find_video(tmp_path, rows[1]) is None
    with caplog.at_level(logging.WARNING):
        record_success_videos(make, rows, HERE)
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
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
    rows = roll_out(make, [Job(0, 0)], executor=HERE, max_errors=1)
    record_success_videos(make, [EpisodeRow(**{**rows[0].__dict__, "state_hash": "x"})], HERE)
    assert "ended otherwise" in caplog.text and find_video(tmp_path, rows[0]) is None
