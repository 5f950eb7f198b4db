"""The Ray executor on this machine: the rows of one process, whatever becomes of the actors."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from invact_vla.core.errors import UserError
from libero_eval.executors import ExecutorConfig, JobQueue, SerialConfig
from libero_eval.executors.ray import RayConfig
from libero_eval.policies import PolicyConfig
from libero_eval.policy_source import PolicySource
from libero_eval.results.rows import EpisodeRow
from libero_eval.rollout.episode import Job
from libero_eval.rollout.runner import EpisodeRunnerFactory
from tests.libero_eval.point_sim import LABELS, WalkerConfig, make_runner

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="needs the ray extra"
)
JOBS = [Job(task, init) for task in (0, 1) for init in range(3)]


def rows_of(
    executor: ExecutorConfig, make: EpisodeRunnerFactory
) -> dict[tuple[int, int], EpisodeRow]:
    def error_row(job: Job, reason: str) -> EpisodeRow:
        episode = (job.task_id, f"task_{job.task_id}", job.init_index)
        return LABELS.row(*episode, outcome="error", reason=reason)

    rows = list(executor.build().run(make, JobQueue(JOBS), error_row))
    assert len(rows) == len(JOBS)
    return {(row.task_id, row.init_index): row for row in rows}


def test_ray_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'invact-vla\[ray\]'"):
        RayConfig().build()


@pytest.mark.parametrize("wrong", [{"workers": 0}, {"cpus": 0}, {"gpus": -1}, {"hang_s": 1}])
def test_wrong_options(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="need"):
        RayConfig(**wrong)  # type: ignore[arg-type]


@needs_ray
@pytest.mark.slow
def test_no_cluster(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no Ray cluster at '127\.0\.0\.1:1'"):
        rows_of(RayConfig(address="127.0.0.1:1"), make_runner(tmp_path))


@needs_ray
@pytest.mark.slow
def test_ray_started_by_the_executor_is_stopped_by_it(tmp_path: Path) -> None:
    import ray

    assert not ray.is_initialized()
    assert {r.outcome for r in rows_of(RayConfig(), make_runner(tmp_path)).values()} == {"success"}
    assert not ray.is_initialized()


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@needs_ray
@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("in_flight", [1, 2])
def test_rows_equal_those_of_one_process(tmp_path: Path, in_flight: int) -> None:
    make = make_runner(tmp_path, in_flight=in_flight)
    here, there = rows_of(SerialConfig(), make), rows_of(RayConfig(workers=2), make)
    assert {k: (r.outcome, r.steps, r.state_hash) for k, r in here.items()} == {
        k: (r.outcome, r.steps, r.state_hash) for k, r in there.items()
    }


@needs_ray
@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_death_costs_one_retry_then_an_error_row(tmp_path: Path) -> None:
    marker = tmp_path / "died"
    once = rows_of(RayConfig(workers=2), make_runner(tmp_path, WalkerConfig(fault="die")))
    assert {k for k, r in once.items() if r.outcome == "error"} == {(0, 2), (1, 2)}
    assert all("lost twice" in once[k].reason for k in ((0, 2), (1, 2)))
    policy = WalkerConfig(fault="die", marker=marker)
    healed = rows_of(RayConfig(workers=1), make_runner(tmp_path, policy))
    assert marker.exists() and {r.outcome for r in healed.values()} == {"success"}


class NoCheckpoint(WalkerConfig):
    """A policy that cannot be loaded."""

    def load(self) -> PolicySource:
        raise UserError("no checkpoint here")


@needs_ray
@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (NoCheckpoint(), "no checkpoint here"),
        (WalkerConfig(fault="start"), "3 Ray actors in a row"),
    ],
)
def test_actors_that_cannot_start(tmp_path: Path, policy: PolicyConfig, message: str) -> None:
    with pytest.raises(UserError, match=message):
        rows_of(RayConfig(workers=1), make_runner(tmp_path, policy))


@needs_ray
@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_actors_without_a_place(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has the cluster 64 cores"):
        rows_of(RayConfig(workers=1, cpus=64, start_s=2), make_runner(tmp_path))
