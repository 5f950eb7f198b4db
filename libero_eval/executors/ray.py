"""Executor `ray`: workers on one machine or many, placed by Ray.

Every node needs this package, LIBERO and the folders of the config (assets, checkpoints, the run's
for videos) under the same paths. An actor that dies, whose node dies, or that shows no sign of life
for `hang_s`, costs its episode one retry and then an error row, as in `processes`.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from invact_vla.core.errors import UserError
from invact_vla.training.ray_map import LOCAL, import_ray, ray_cluster
from libero_eval.executors.child_process import ONE_THREAD
from libero_eval.executors.executor import (
    ErrorRow,
    Executor,
    ExecutorConfig,
    Job,
    JobQueue,
    MakeRunner,
    Results,
    Runner,
)
from libero_eval.executors.worker_pool import Lost, Ready, Worker, WorkerPool

HEARTBEAT_S = 5.0  # how often a working actor says that it lives


@ExecutorConfig.register_subclass("ray")
@dataclass(frozen=True, kw_only=True)
class RayConfig(ExecutorConfig):
    """Actors of a Ray cluster, each with its own copy of the policy."""

    workers: int = 2  # actors; simulators are bound by the CPU: about one per core
    address: str = LOCAL  # of a cluster: auto, HOST:6379 or ray://HOST:10001; local starts one here
    cpus: float = 1.0  # cores that an actor takes
    gpus: float = 0.0  # GPUs that an actor takes, shares of one allowed
    start_s: float = 1800.0  # an actor that is not placed and ready by then stops the run
    hang_s: float = 300.0  # an actor that shows no sign of life this long is killed

    def __post_init__(self) -> None:
        if self.workers < 1 or self.cpus <= 0 or self.gpus < 0:
            raise ValueError("need workers >= 1, cpus > 0 and gpus >= 0")
        if self.hang_s <= HEARTBEAT_S or self.start_s <= 0:
            raise ValueError(f"need hang_s > {HEARTBEAT_S} and start_s > 0")

    def build(self) -> Executor:
        """Raises UserError if Ray is not installed."""
        _ray()
        return _ActorPool(self)


def _ray() -> Any:
    return import_ray("the executor `ray`", "use --workers")


class _ActorProcess:
    """The actor: one runner in a process that Ray starts."""

    def __init__(self) -> None:
        os.environ.update(ONE_THREAD)
        self._runner: Runner | None = None

    def start(self, make_runner: Sequence[Callable[[], Runner]]) -> Ready | UserError:
        """Make the runner. make_runner: in a list, by which Ray leaves it alone."""
        try:
            self._runner = make_runner[0]()
        except UserError as error:
            return error
        return Ready(self._runner.capacity)

    def work(self, jobs: Sequence[Any]) -> list[tuple[Any, Any]] | UserError:
        """Take jobs, and go on until one of those held ends or a sign of life is due."""
        assert self._runner is not None
        deadline = time.monotonic() + HEARTBEAT_S
        try:
            for job in jobs:
                self._runner.start(job)
            while True:
                ended = list(self._runner.advance())
                if ended or time.monotonic() > deadline:
                    return ended
        except UserError as error:
            return error


class _Actor(Worker[Any]):
    def __init__(self, handle: Any, call: Any) -> None:
        """call: the future of the call that is out, None if it idles."""
        super().__init__()
        self.handle, self.call = handle, call
        self.new_jobs: list[Any] = []  # for its next call


class _ActorPool(WorkerPool[_Actor]):
    noun = "Ray actor"

    def __init__(self, config: RayConfig) -> None:
        super().__init__(config)
        self.start_s = config.start_s

    def run(self, make_runner: MakeRunner, queue: JobQueue[Job], error_row: ErrorRow) -> Results:
        """See `Executor.run`; a cluster that was not there before is stopped at the end."""
        if queue.is_empty():
            return
        cpus = self.config.workers * self.config.cpus
        with ray_cluster(_ray(), self.config.address, cpus, "--executor.address local"):
            yield from super().run(make_runner, queue, error_row)

    def launch(self, make_runner: MakeRunner) -> _Actor:
        options = {
            "num_cpus": self.config.cpus, "num_gpus": self.config.gpus, "max_restarts": 0,
        }  # fmt: skip
        remote: Any = _ray().remote(_ActorProcess).options(**options)
        handle = remote.remote()
        return _Actor(handle, handle.start.remote([make_runner]))

    def send(self, worker: _Actor, job: Any) -> bool:
        worker.new_jobs.append(job)
        return True

    def receive(self, timeout_s: float) -> Iterator[tuple[_Actor, object]]:
        ray = _ray()
        for actor in self.workers:
            if actor.call is None and actor.jobs:
                actor.call, actor.new_jobs = actor.handle.work.remote(actor.new_jobs), []
        out = [actor for actor in self.workers if actor.call is not None]
        if not out:
            return
        ready, _ = ray.wait([actor.call for actor in out], timeout=timeout_s)
        for actor in out:
            if actor.call in ready:
                call, actor.call = actor.call, None
                try:
                    yield actor, ray.get(call)
                except ray.exceptions.RayError as error:
                    yield actor, Lost(f"died: {' '.join(str(error).split())[-500:]}")

    def stop(self, worker: _Actor) -> None:
        _ray().kill(worker.handle)

    def cannot_start(self, count: int, why: str) -> str:
        return (
            f"{count} Ray actors in a row were never ready, the last one {why}: has the cluster "
            f"{self.config.cpus:g} cores and {self.config.gpus:g} GPUs for each, and this package "
            "on every node?"
        )
