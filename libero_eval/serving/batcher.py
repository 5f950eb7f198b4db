"""Requests of many episodes, answered together in one thread."""

import asyncio
import math
from collections.abc import Callable
from typing import Any

from invact_vla.core.schema import ActionChunk, Observation, Policy
from libero_eval.policy_source import PolicyRequest, PolicySource
from libero_eval.serving.policy_thread import PolicyRaised, PolicyThread
from libero_eval.serving.turns import Turns

Answer = ActionChunk | BaseException
Call = Callable[[], Any]


class Batcher:
    """Calls a source from one thread, and collects batches; clients take turns.

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
        self._thread = PolicyThread()
        self._requests: Turns[tuple[PolicyRequest, asyncio.Future[Answer]]] = Turns()
        self._calls: Turns[tuple[Call, asyncio.Future[Any]]] = Turns()
        self._deadline = 0.0  # of the requests that wait
        self._arrived = asyncio.Event()
        self.requests, self.batches = 0, 0

    async def act(self, client: str, policy: Policy, observation: Observation) -> ActionChunk:
        """The next chunk of a client's policy. Raises PolicyRaised."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        if not self._requests:
            self._deadline = loop.time() + self._max_wait_s
        self._requests.put(client, ((policy, observation), future))
        self._arrived.set()
        answer = await future
        if isinstance(answer, BaseException):
            raise PolicyRaised(answer)
        return answer

    async def call(self, client: str, function: Callable[..., Any], *arguments: object) -> Any:
        """Call something else of the source for a client, e.g. `open`. Raises PolicyRaised."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._calls.put(client, (lambda: function(*arguments), future))
        self._arrived.set()
        answer = await future
        if isinstance(answer, PolicyRaised):
            raise answer
        return answer

    async def run(self) -> None:
        """Answer requests and calls, a batch and a call in turn, until cancelled."""
        while True:
            await self._work_arrives()
            if self._is_due():
                await self._answer_batch()
            if self._calls:
                await self._answer_call()

    def close(self, patience_s: float) -> None:
        """End the thread, after the call that runs if that ends in time."""
        self._thread.close(patience_s)

    async def _work_arrives(self) -> None:
        """Return when a call waits, or a batch should go."""
        loop = asyncio.get_running_loop()
        while not self._calls and not self._is_due():
            self._arrived.clear()
            late = self._deadline if self._requests else math.inf
            await _until(self._arrived, loop, late)

    def _is_due(self) -> bool:
        """Whether the waiting requests should go."""
        count = len(self._requests)
        if not count or count >= min(self._max_batch, self._running()):
            return count > 0
        return asyncio.get_running_loop().time() >= self._deadline

    async def _answer_batch(self) -> None:
        batch = [self._requests.take() for _ in range(min(len(self._requests), self._max_batch))]
        answers = await self._answers([request for request, _ in batch])
        self.requests += len(batch)
        self.batches += 1
        for (_, future), answer in zip(batch, answers, strict=True):
            _settle(future, answer)

    async def _answers(self, requests: list[PolicyRequest]) -> list[Answer]:
        try:
            return await self._thread.call(self._act_apart, requests)
        except PolicyRaised as raised:
            return [raised.error for _ in requests]

    def _act_apart(self, requests: list[PolicyRequest]) -> list[Answer]:
        """In the thread, as is the check of what a source of one's own makes of it."""
        answers: list[Answer] = list(self._source.act_apart(requests))
        if len(answers) != len(requests):
            raise TypeError(f"{len(answers)} answers to {len(requests)} requests")
        return answers

    async def _answer_call(self) -> None:
        function, future = self._calls.take()
        try:
            _settle(future, await self._thread.call(function))
        except PolicyRaised as raised:
            _settle(future, raised)


async def _until(event: asyncio.Event, loop: asyncio.AbstractEventLoop, deadline: float) -> None:
    """Wait for an event, or for a time of the loop. asyncio.wait_for could lose a cancellation."""
    timer = None if deadline == math.inf else loop.call_at(deadline, event.set)
    try:
        await event.wait()
    finally:
        if timer is not None:
            timer.cancel()


def _settle(future: asyncio.Future[Any], answer: object) -> None:
    """Answer, unless nobody waits any more."""
    if not future.done():
        future.set_result(answer)
