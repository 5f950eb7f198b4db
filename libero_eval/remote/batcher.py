"""Requests of many episodes, answered together in one thread."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from invact_vla.schema import ActionChunk, Observation, Policy
from libero_eval.policy_source import PolicySource, Request

Value = TypeVar("Value")


class Batcher:
    """Calls a source from one thread, since policies are not thread-safe, and collects batches.

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
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="policy")
        self._waiting: list[tuple[Request, asyncio.Future[ActionChunk]]] = []
        self._arrived = asyncio.Event()
        self.requests, self.batches = 0, 0

    async def act(self, policy: Policy, observation: Observation) -> ActionChunk:
        """The next chunk of a policy. Raises what the policy raises."""
        future: asyncio.Future[ActionChunk] = asyncio.get_running_loop().create_future()
        self._waiting.append(((policy, observation), future))
        self._arrived.set()
        return await future

    async def call(self, function: Callable[..., Value], *arguments: object) -> Value:
        """Call something else of the source in its thread, e.g. `open`."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, function, *arguments)

    async def run(self) -> None:
        """Answer requests until cancelled."""
        while True:
            await self._collect()
            batch = self._waiting[: self._max_batch]
            del self._waiting[: self._max_batch]
            requests = [request for request, _ in batch]
            answers = await self.call(self._source.act_apart, requests)
            self.requests += len(batch)
            self.batches += 1
            for (_, future), answer in zip(batch, answers, strict=True):
                if future.cancelled():
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)

    def close(self) -> None:
        """Wait for the call that runs, and end the thread."""
        self._thread.shutdown(cancel_futures=True)

    async def _collect(self) -> None:
        """Return when the waiting requests should go."""
        loop = asyncio.get_running_loop()
        while not self._waiting:
            await self._next(None)
        deadline = loop.time() + self._max_wait_s
        while len(self._waiting) < min(self._max_batch, self._running()):
            left = deadline - loop.time()
            if left <= 0 or not await self._next(left):
                return

    async def _next(self, timeout: float | None) -> bool:
        """Wait for one more request; False after `timeout` seconds without."""
        self._arrived.clear()
        try:
            await asyncio.wait_for(self._arrived.wait(), timeout)
        except asyncio.TimeoutError:
            return False
        return True
