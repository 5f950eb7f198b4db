"""Executor `ray`: workers on one machine or many, placed by Ray.

Every node needs this package, LIBERO and the folders of the config (assets, checkpoints, the run's
for videos) under the same paths. An actor that dies, whose node dies, or that shows no sign of life
for `hang_s`, costs its episode one retry and then an error row, as in `processes`.
"""

import importlib
import logging
import math
import os
import socket
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic

from invact_vla.core.errors import UserError
from libero_eval.executors.child_process import ONE_THREAD
from libero_eval.executors.executor import Executor, ExecutorConfig, Job, JobQueue, Result, Runner

logger = logging.getLogger(__name__)

START_ATTEMPTS = 3  # actors in a row that may end before they are ready
HEARTBEAT_S = 5.0  # how often a working actor says that it lives
LOCAL = "local"


@ExecutorConfig.register_subclass("ray")
@dataclass(frozen=True, kw_only=True)
class RayConfig(ExecutorConfig):
    """Actors of a Ray cluster, each with its own copy of the policy."""

    workers: int = 2  # actors; simulators are bound by the CPU: about one a core
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
        return RayExecutor(self)


def _ray() -> Any:
    """The module, which may be missing."""
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError as error:
        raise UserError(
            "the executor `ray` needs Ray: pip install 'invact-vla[ray]', or use --workers"
        ) from error


class RayExecutor:
    """See `RayConfig`."""

    def __init__(self, config: RayConfig) -> None:
        self._config = config

    def run(
        self,
        make_runner: Callable[[], Runner[Job, Result]],
        queue: JobQueue[Job],
        error_row: Callable[[Job, str], Result],
    ) -> Generator[Result, None, None]:
        """See `Executor.run`."""
        ray = _ray()
        if queue.is_empty():
            return
        is_ours = not ray.is_initialized()
        if is_ours:
            _connect(self._config)
        pool = _Pool(self._config, make_runner, queue, error_row)
        try:
            yield from pool.results()
        finally:
            pool.stop()
            if is_ours:
                ray.shutdown()


def _connect(config: RayConfig) -> None:
    ray = _ray()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"logging_level": logging.WARNING, "log_to_driver": True}
    if config.address == LOCAL:
        cpus = max(os.cpu_count() or 1, math.ceil(config.workers * config.cpus))
        options |= {"num_cpus": cpus, "include_dashboard": False}
    try:
        if ":" in config.address:  # Ray itself would wait for minutes
            host, port = config.address.removeprefix("ray://").rsplit(":", 1)
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address=config.address, **options)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise UserError(
            f"no Ray cluster at {config.address!r} ({error}): start one with `ray start --head`, or "
            "use --executor.address local"
        ) from error


class _Worker:
    """The actor: one runner in a process that Ray starts."""

    def __init__(self) -> None:
        os.environ.update(ONE_THREAD)
        self._runner: Runner[Any, Any] | None = None
        self._held = 0

    def start(self, make_runner: Sequence[Callable[[], Runner[Any, Any]]]) -> int | UserError:
        """Make the runner; returns its room. make_runner: in a list, by which Ray leaves it alone."""
        try:
            self._runner = make_runner[0]()
        except UserError as error:
            return error
        return self._runner.room

    def work(self, jobs: Sequence[Any]) -> list[tuple[Any, Any]] | UserError:
        """Take jobs, and go on until one of those held ends or a sign of life is due."""
        assert self._runner is not None
        deadline = time.monotonic() + HEARTBEAT_S
        try:
            for job in jobs:
                self._runner.start(job)
            self._held += len(jobs)
            while True:
                ended = list(self._runner.advance())
                if ended or time.monotonic() > deadline:
                    self._held -= len(ended)
                    return ended
        except UserError as error:
            return error


@dataclass
class _Actor(Generic[Job]):
    handle: Any
    answer: Any  # the future of the call that is out, None if it idles
    since: float  # when that call was made, seconds of time.monotonic
    is_ready: bool = False
    free: list[int | None] = field(default_factory=list)  # tasks in memory that no job uses
    held: list[Job] = field(default_factory=list)


class _Pool(Generic[Job, Result]):
    """The driver's side: which actor runs what."""

    def __init__(
        self,
        config: RayConfig,
        make_runner: Callable[[], Runner[Job, Result]],
        queue: JobQueue[Job],
        error_row: Callable[[Job, str], Result],
    ) -> None:
        self._ray = ray = _ray()
        self._config, self._make_runner = config, make_runner
        self._queue, self._error_row = queue, error_row
        self._actors: list[_Actor[Job]] = []
        self._failed_starts = 0
        options = {"num_cpus": config.cpus, "num_gpus": config.gpus, "max_restarts": 0}
        self._remote: Any = ray.remote(_Worker).options(**options)

    def results(self) -> Iterator[Result]:
        """Run everything; see `Executor.run`."""
        while any(actor.held for actor in self._actors) or not self._queue.is_empty():
            self._start_actors()
            for actor in self._actors:
                if actor.is_ready and actor.answer is None:
                    self._hand_out(actor)
            yield from self._wait()

    def stop(self) -> None:
        """End all actors."""
        for actor in self._actors:
            self._ray.kill(actor.handle)
        self._actors.clear()

    def _start_actors(self) -> None:
        unused = sum(not actor.held for actor in self._actors)
        places = self._config.workers - len(self._actors)
        for _ in range(min(places, self._queue.useful_processes(unused + places) - unused)):
            handle = self._remote.remote()
            ready = handle.start.remote([self._make_runner])
            self._actors.append(_Actor(handle, ready, time.monotonic()))

    def _hand_out(self, actor: _Actor[Job]) -> None:
        new: list[Job] = []
        while actor.free and (job := self._queue.take(actor.free[-1], actor.held)) is not None:
            actor.free.pop()
            actor.held.append(job)
            new.append(job)
        if actor.held:
            actor.answer, actor.since = actor.handle.work.remote(new), time.monotonic()

    def _wait(self) -> Iterator[Result]:
        """Attend to actors that answered, died or hang; blocks until one does."""
        out = [actor for actor in self._actors if actor.answer is not None]
        if not out:
            return
        patience = max(0.0, min(self._patience(actor) for actor in out))
        ready, _ = self._ray.wait([actor.answer for actor in out], timeout=patience)
        for actor in out:
            if actor.answer in ready:
                yield from self._attend(actor)
            elif self._patience(actor) <= 0:
                yield from self._handle_worker_death(actor, "showed no sign of life")

    def _patience(self, actor: _Actor[Job]) -> float:
        """Seconds from now until it counts as hung."""
        longest = self._config.hang_s if actor.is_ready else self._config.start_s
        return actor.since + longest - time.monotonic()

    def _attend(self, actor: _Actor[Job]) -> Iterator[Result]:
        """Take the answer of an actor, or bury it."""
        try:
            answer = self._ray.get(actor.answer)
        except self._ray.exceptions.RayError as error:
            yield from self._handle_worker_death(
                actor, f"died: {' '.join(str(error).split())[-500:]}"
            )
            return
        actor.answer = None
        if isinstance(answer, UserError):
            raise answer
        if not actor.is_ready:
            actor.is_ready, actor.free, self._failed_starts = True, [None] * answer, 0
            return
        for job, result in answer:
            actor.held.remove(job)
            actor.free.append(job.task_id)
            self._queue.done(job)
            yield result

    def _handle_worker_death(self, actor: _Actor[Job], why: str) -> Iterator[Result]:
        self._ray.kill(actor.handle)
        self._actors.remove(actor)
        if not actor.is_ready:
            self._failed_starts += 1
            if self._failed_starts >= START_ATTEMPTS or self._patience(actor) <= 0:
                raise UserError(
                    f"{self._failed_starts} Ray actors in a row were never ready, the last one {why}: "
                    f"has the cluster {self._config.cpus:g} cores and {self._config.gpus:g} GPUs for "
                    "each, and this package on every node?"
                )
            return
        logger.warning("a Ray actor %s, holding %s", why, actor.held or "nothing")
        for job in self._queue.lost(actor.held):
            yield self._error_row(job, f"its Ray actor was lost twice; the last one {why}")
