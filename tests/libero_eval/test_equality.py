"""An episode is the same wherever, whenever and beside whatever it runs, in both asset packs.

The policy reads the picture, so a difference in any frame ends in another state. Compared is all
of a row but its duration: outcome, steps, and the hash of the final state, bit for bit.
"""

import importlib.util
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

if importlib.util.find_spec("robosuite") is None:
    pytest.skip("needs the libero extra", allow_module_level=True)

from libero_eval.env.assets.pack import AssetPack, OfficialPack, ProceduralPack
from libero_eval.executors import ProcessesConfig
from libero_eval.policies import DemonstratorConfig, PolicyConfig
from libero_eval.policies.selftest import SelftestConfig
from libero_eval.results.rows import EpisodeRow, merge, read_episodes
from libero_eval.rollout import command as rollout
from libero_eval.rollout.command import RolloutConfig
from libero_eval.rollout.episode_video import VideoConfig
from tests.paths import LIBERO_ASSETS, REPOSITORY, needs_libero_assets


def config_of(folder: Path, assets: AssetPack, tasks: int, episodes: int) -> RolloutConfig:
    policy: PolicyConfig = SelftestConfig(chunk=4)
    return RolloutConfig(
        out=folder, policy=policy, assets=assets, tasks=tuple(range(tasks)), episodes=episodes,
        max_steps=8, render_px=64, videos=VideoConfig(per_task=0),
    )  # fmt: skip


def rows_of(config: RolloutConfig, **changes: object) -> list[EpisodeRow]:
    folder = rollout.main(replace(config, **changes))  # type: ignore[arg-type]
    return [row.without_time() for row in read_episodes(folder)]


def rows_shuffled(config: RolloutConfig, patch: pytest.MonkeyPatch) -> list[EpisodeRow]:
    jobs = rollout.jobs_of(config)
    random.Random(5).shuffle(jobs)
    with patch.context() as inside:
        inside.setattr(rollout, "jobs_of", lambda _: jobs)
        return rows_of(config)


def rows_after_kill(config: RolloutConfig, at: int) -> list[EpisodeRow]:
    """Kill the whole process group once `at` episodes are recorded, then go on in another way."""
    assert isinstance(config.assets, OfficialPack | ProceduralPack)
    words = [
        "--assets.type",
        config.assets.name,
        "--policy.type",
        "selftest",
        "--policy.chunk",
        "4",
    ]
    if config.assets.folder is not None:
        words += ["--assets.folder", str(config.assets.folder)]
    words += ["--out", str(config.out), "--tasks", str(list(config.tasks)), "--workers", "2"]
    words += ["--episodes", str(config.episodes), "--max_steps", "8", "--render_px", "64"]
    words += ["--videos.per_task", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "invact_vla.app.cli", "libero", "rollout", *words],
        cwd=REPOSITORY, start_new_session=True, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    log = config.out / "episodes.jsonl"
    until = time.monotonic() + 120
    while not log.exists() or log.read_bytes().count(b"\n") < at:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = len(read_episodes(config.out))
    assert at <= done < len(rollout.jobs_of(config)), "the kill came too late to test anything"
    return rows_of(config, in_flight=2)


def check_all_ways(config: RolloutConfig, patch: pytest.MonkeyPatch, names: str) -> None:
    """Run the config in each of the named ways and compare with the serial run."""
    serial = rows_of(config)
    assert len(serial) == len(rollout.jobs_of(config))
    assert len({row.state_hash for row in serial}) == len(serial)
    assert {row.outcome for row in serial} == {"failure"}
    root = config.out.parent

    def of(name: str) -> RolloutConfig:
        return replace(config, out=root / name.replace(" ", "_"))

    ways: dict[str, Callable[[RolloutConfig], list[EpisodeRow]]] = {
        "one worker": lambda c: rows_of(c, workers=1),
        "two workers": lambda c: rows_of(c, workers=2),
        "recycled": lambda c: rows_of(c, executor=ProcessesConfig(workers=2, recycle=30)),
        "shuffled": lambda c: rows_shuffled(c, patch),
        "two in flight": lambda c: rows_of(c, in_flight=2),
        "central": lambda c: rows_of(c, workers=2, inference="central"),
        "killed": lambda c: rows_after_kill(c, len(serial) // 3),
    }
    for name in names.split(", "):
        assert ways[name](of(name)) == serial, name


def test_six_episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(tmp_path / "serial", ProceduralPack(), tasks=2, episodes=3)
    check_all_ways(config, monkeypatch, "shuffled, two in flight, two workers, central")
    for index in (0, 1):
        folder = tmp_path / f"shard{index}"
        rows_of(config, out=folder, shard=f"{index}/2")
    merged = merge([tmp_path / "shard0", tmp_path / "shard1"])
    assert [row.without_time() for row in merged] == rows_of(config)


@pytest.mark.slow
def test_successes_are_the_same_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Episodes of about 200 steps that the scripted expert solves."""
    config = RolloutConfig(
        out=tmp_path / "serial", policy=DemonstratorConfig(), tasks=(7, 8), episodes=3,
        videos=VideoConfig(per_task=0, first_success=False),
    )  # fmt: skip
    serial = rows_of(config)
    assert {row.outcome for row in serial} == {"success"}
    assert len({row.steps for row in serial}) > 1
    assert rows_of(replace(config, out=tmp_path / "two"), workers=2) == serial
    assert rows_shuffled(replace(config, out=tmp_path / "shuffled"), monkeypatch) == serial


ALL = "one worker, two workers, shuffled, two in flight, killed"


@pytest.mark.slow
def test_a_hundred_episodes_of_the_procedural_pack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tmp_path / "serial", ProceduralPack(), tasks=10, episodes=10)
    check_all_ways(config, monkeypatch, f"{ALL}, recycled")


@pytest.mark.slow
@needs_libero_assets
def test_a_hundred_episodes_of_the_official_pack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tmp_path / "serial", OfficialPack(folder=LIBERO_ASSETS), 5, 20)
    check_all_ways(config, monkeypatch, ALL)
