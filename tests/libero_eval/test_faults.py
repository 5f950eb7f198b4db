"""Faults of every kind, many, at random: no episode is lost, doubled, or counted as a failure.

Workers are killed, leave, or hang; policies raise, or answer with what is no action; rendering
fails, in episodes and at the start; init files are damaged; the disk is full in the middle of a row.
"""

import errno
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from invact_vla.core.errors import UserError
from libero_eval.executors import Executor, ProcessesConfig, SerialConfig
from libero_eval.results import rows as results
from libero_eval.results.rows import EpisodeRow, read_episodes
from libero_eval.rollout.command import roll_out, summary_of
from libero_eval.rollout.episode import Job
from libero_eval.rollout.episode_video import VideoConfig
from libero_eval.rollout.runner import EpisodeRunnerFactory
from tests.libero_eval.faults import ALWAYS, BAD_ACTIONS, FaultyConfig, OpenFaulty, Plan
from tests.libero_eval.point_sim import LABELS

HARMLESS = ("raise", "no chunk", *BAD_ACTIONS, "gl", "init file")  # to the process
REASONS = {
    "raise": "KeyError: '<action>'", "no chunk": "expected 1 ActionChunk", "nan": "got NaN",
    "range": "expected [-1.0, 1.0]", "shape": "(4, 6)", "empty": "(0, 7)", "gl": "GL error 0x505",
    "init file": "malformed.pruned_init: refused", "kill": "SIGKILL", "exit": "exit code 3",
    "hang": "no sign of life",
}  # fmt: skip


class FullDisk:
    """Lets a part of a row through and then fails, before the rows of the given numbers."""

    def __init__(self, failing: set[int]) -> None:
        self._failing, self._write, self.calls, self.failed = failing, results._write, 0, 0

    def __call__(self, descriptor: int, content: bytes) -> None:
        self.calls += 1
        if self.calls in self._failing:
            self.failed += 1
            os.write(descriptor, content[: self.calls * 37 % len(content)])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._write(descriptor, content)


def plan_of(
    folder: Path, jobs: list[Job], counts: dict[str, int], rng: np.random.Generator
) -> Plan:
    """Spread the counted faults over the jobs; "open" faults over their tasks."""
    faults: dict[tuple[int, int], tuple[str, ...]] = {}
    names = [name for name, count in sorted(counts.items()) for _ in range(count)]
    for number in rng.permutation(len(names)):
        job = jobs[int(rng.integers(len(jobs)))]
        place = (job.task_id, -1 if names[number] == "open" else job.init_index)
        faults[place] = (*faults.get(place, ()), names[number])
    folder.mkdir()
    return Plan(faults, folder)


def runner_of(folder: Path, plan: Plan, in_flight: int = 1) -> EpisodeRunnerFactory:
    videos = VideoConfig(per_task=0)
    return EpisodeRunnerFactory(FaultyConfig(), OpenFaulty(plan), LABELS, videos, folder, in_flight)


def repeat_until_done(
    folder: Path, plan: Plan, jobs: list[Job], executors: list[tuple[Executor, int]]
) -> list[EpisodeRow]:
    """Start the run again until no episode ends as an error, on one executor after the other."""
    for attempt in range(100):
        executor, in_flight = executors[attempt % len(executors)]
        try:
            rows = roll_out(runner_of(folder, plan, in_flight), jobs, executor, max_errors=10**9)
        except UserError as error:
            assert "No space left" in str(error) and "could not record" in str(error)
            rows = read_episodes(folder)  # refuses torn, damaged and doubled rows
            assert not (folder / "episodes.jsonl").read_bytes()[-1:].strip()
            continue
        assert [(row.task_id, row.init_index) for row in rows] == sorted(
            (job.task_id, job.init_index) for job in jobs
        )
        assert all(row.reason.strip() for row in rows)
        if all(row.outcome != "error" for row in rows):
            return rows
    raise AssertionError("errors do not end")


def check_faults(
    tmp_path: Path, patch: pytest.MonkeyPatch, jobs: list[Job], counts: dict[str, int]
) -> None:
    clean = Plan({}, tmp_path / "none")
    expected = roll_out(runner_of(tmp_path / "clean", clean), jobs, SerialConfig().build(), 1)
    assert {row.outcome for row in expected} == {"success", "failure"}

    rng = np.random.default_rng(7)
    full = FullDisk({int(n) for n in rng.choice(len(jobs), counts["disk"], replace=False) + 1})
    patch.setattr(results, "_write", full)
    plan = plan_of(tmp_path / "marks", jobs, {**counts, "disk": 0}, rng)
    processes = ProcessesConfig(workers=2, hang_s=2.0).build()
    folder = tmp_path / "run"
    rows = repeat_until_done(folder, plan, jobs, [(processes, 1), (processes, 3)])
    assert [r.without_time() for r in rows] == [r.without_time() for r in expected]
    assert plan.happened() + full.failed == sum(counts.values())
    lines = (folder / "episodes.jsonl").read_text().splitlines()
    assert len(lines) == full.calls - full.failed


def test_sixty_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [Job(task, init) for task in range(3) for init in range(10)]
    counts = dict.fromkeys(HARMLESS, 5) | {"kill": 3, "hang": 1, "exit": 2, "open": 10, "disk": 4}
    check_faults(tmp_path, monkeypatch, jobs, counts)


@pytest.mark.slow
def test_a_thousand_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [Job(task, init) for task in range(10) for init in range(40)]
    counts = dict.fromkeys(HARMLESS, 100) | {
        "kill": 60, "exit": 30, "hang": 10, "open": 60, "disk": 40,
    }  # fmt: skip
    assert sum(counts.values()) == 1000
    check_faults(tmp_path, monkeypatch, jobs, counts)


def test_what_never_works_ends_as_an_error_with_a_reason(tmp_path: Path) -> None:
    faults = {(1, number): (name,) * ALWAYS for number, name in enumerate(REASONS)}
    folder = tmp_path / "marks"
    folder.mkdir()
    jobs = [Job(1, number) for number in range(len(REASONS) + 2)]
    make = runner_of(tmp_path / "run", Plan(faults, folder), in_flight=2)
    rows = roll_out(make, jobs, ProcessesConfig(workers=2, hang_s=1.5).build(), 10**9)
    assert Counter(row.outcome for row in rows)["error"] == len(REASONS)
    for row, words in zip(rows, REASONS.values(), strict=False):
        assert words in row.reason, row.reason
        first = row.reason.splitlines()[0]
        assert row.task in first and f"init state {row.init_index}" in first
    assert summary_of(rows)["rate"] is None
