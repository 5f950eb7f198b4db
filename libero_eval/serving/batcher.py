"""Requests of many episodes, computed together in one thread; clients take turns."""

import asyncio
import functools
import logging
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from invact_vla.core.schema import ActionChunk, Observation, Policy
from libero_eval.policy_source import PolicyRequest, PolicyResponse, PolicySource

logger = logging.getLogger(__name__)
Work = TypeVar("Work")


class PolicyRaised(Exception):
    """A policy raised something. error: what, of any kind; StopIteration cannot pass a coroutine."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(type(error).__name__)
        self.error = error


class Batcher:
    """Calls a source from one thread, and collects batches.

    A batch goes when it holds max_batch requests, or one of every running episode, or when its
    first request has waited max_wait_s; at once where the source does not gain from batches. One
    request of an episode is out at a time.
    """

    def __init__(
        self, source: PolicySource, running: Callable[[], int], max_batch: int, max_wait_s: float
    ) -> None:
        """running: number of episodes that may send a request."""
        self._source, self._running = source, running
        self._max_batch, self._max_wait_s = max_batch, max_wait_s if source.batched else 0.0
        self._thread = _PolicyThread()
        self._requests: FairQueue[tuple[PolicyRequest, asyncio.Future[Any]]] = FairQueue()
        self._calls: FairQueue[tuple[Callable[[], Any], asyncio.Future[Any]]] = FairQueue()
        self._deadline = 0.0  # of the requests that wait
        self._arrived = asyncio.Event()
        self.requests, self.batches = 0, 0

    async def act(self, client: str, policy: Policy, observation: Observation) -> ActionChunk:
        """The next chunk of a client's policy. Raises PolicyRaised."""
        if not self._requests:
            self._deadline = asyncio.get_running_loop().time() + self._max_wait_s
        return await self._result(self._requests, client, (policy, observation))

    async def call(self, client: str, function: Callable[..., Any], *arguments: object) -> Any:
        """Call something else of the source for a client, e.g. `open`. Raises PolicyRaised."""
        return await self._result(self._calls, client, functools.partial(function, *arguments))

    async def run(self) -> None:
        """Respond to requests and calls, a batch and a call in turn, until cancelled."""
        while True:
            await self._work_arrives()
            if self._is_due():
                await self._run_batch()
            if self._calls:
                call, future = self._calls.take()
                _settle(future, await self._in_thread(call))

    def close(self, patience_s: float) -> None:
        """End the thread, after the call that runs if that ends in time."""
        self._thread.close(patience_s)

    async def _result(self, queue: "FairQueue[Any]", client: str, work: object) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        queue.put(client, (work, future))
        self._arrived.set()
        result = await future
        if isinstance(result, PolicyRaised):
            raise result
        return result

    async def _work_arrives(self) -> None:
        """Return when a call waits, or a batch should go."""
        loop = asyncio.get_running_loop()
        while not self._calls and not self._is_due():
            self._arrived.clear()
            # asyncio.wait_for could lose a cancellation
            timer = loop.call_at(self._deadline, self._arrived.set) if self._requests else None
            try:
                await self._arrived.wait()
            finally:
                if timer is not None:
                    timer.cancel()

    def _is_due(self) -> bool:
        count = len(self._requests)
        if not count or count >= min(self._max_batch, self._running()):
            return count > 0
        return asyncio.get_running_loop().time() >= self._deadline

    async def _run_batch(self) -> None:
        batch = [self._requests.take() for _ in range(min(len(self._requests), self._max_batch))]
        responses = await self._in_thread(
            functools.partial(self._respond, [request for request, _ in batch])
        )
        if isinstance(responses, PolicyRaised):
            responses = [responses.error] * len(batch)
        self.requests += len(batch)
        self.batches += 1
        for (_, future), response in zip(batch, responses, strict=True):
            has_raised = isinstance(response, BaseException)
            _settle(future, PolicyRaised(response) if has_raised else response)

    def _respond(self, requests: list[PolicyRequest]) -> list[PolicyResponse]:
        """In the thread, as is the check of what a source of one's own makes of it."""
        responses = list(self._source.act_apart(requests))
        if len(responses) != len(requests):
            raise TypeError(f"{len(responses)} responses to {len(requests)} requests")
        return responses

    async def _in_thread(self, function: Callable[[], Any]) -> Any:
        """What it returns, or PolicyRaised with whatever it raises."""
        loop = asyncio.get_running_loop()
        returned: asyncio.Future[Any] = loop.create_future()

        def work() -> None:
            try:
                result = function()
            except BaseException as error:  # noqa: BLE001 - its caller raises it
                result = PolicyRaised(error)
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(_settle, returned, result)

        self._thread.put(work)
        return await returned


class FairQueue(Generic[Work]):
    """Waiting work of many clients: one with much of it does not keep those with little waiting."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Work]] = {}  # in the order of their next turns
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, client: str, work: Work) -> None:
        """Add work of a client behind the rest of its own."""
        self._waiting.setdefault(client, deque()).append(work)
        self._count += 1

    def take(self) -> Work:
        """The oldest work of the client whose turn it is; for a queue that is not empty."""
        client = next(iter(self._waiting))
        queue = self._waiting.pop(client)
        work = queue.popleft()
        self._count -= 1
        if queue:
            self._waiting[client] = queue
        return work


class _PolicyThread:
    """Calls functions one after the other, since policies are not thread-safe.

    The thread is a daemon: a policy that never returns does not keep the process from its end.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self.put = self._calls.put
        self._thread = threading.Thread(target=self._work, name="policy", daemon=True)
        self._thread.start()

    def close(self, patience_s: float) -> None:
        """Let the call that runs end, and the thread; one that takes longer is left behind."""
        self._calls.put(None)
        self._thread.join(patience_s)
        if self._thread.is_alive():
            logger.warning("the policy is in a call that does not end: it is left behind")

    def _work(self) -> None:
        while (work := self._calls.get()) is not None:
            work()


def _settle(future: asyncio.Future[Any], result: object) -> None:
    if not future.done():
        future.set_result(result)
