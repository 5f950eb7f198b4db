"""Where policies come from: weights loaded once in a process, a policy object for each episode.

Needs NumPy only, so that a policy server can use it in an environment without the simulator.
"""

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from invact_vla.core.errors import UserError
from invact_vla.core.schema import ActionChunk, Observation, Policy

logger = logging.getLogger(__name__)

REFUSED = "not rolled out"  # begins the message of what ends a whole run, not one episode

PolicyRequest = tuple[Policy, Observation]  # an opened policy, and what its episode shows now
PolicyResponse = ActionChunk | Exception  # an exception ends the episode as an error


class PolicySource(ABC):
    """A policy loaded once in a process. It opens one policy object for each episode.

    reads_simulator: `open` looks at the simulator, so the policy can only live beside it.
    batched: `act` computes many requests together, and one that fails has changed nothing.
    """

    reads_simulator = False
    batched = False

    @abstractmethod
    def open(self, sim: Any) -> Policy:
        """A policy for one episode, with its own state, never shared with another episode.

        sim: the episode's simulator; a source with `reads_simulator` False ignores it.
        """

    def act(self, requests: Sequence[PolicyRequest]) -> list[ActionChunk]:
        """The next chunk of each request, in their order; at most one request per episode."""
        return [policy.act(observation) for policy, observation in requests]

    def act_apart(self, requests: Sequence[PolicyRequest]) -> list[PolicyResponse]:
        """As `act`, but what goes wrong for one request is the response to that one alone."""
        if self.batched and len(requests) > 1:
            try:
                return _checked(self.act(requests), len(requests))
            except BaseException as error:  # noqa: BLE001 - found out below, one by one
                cause = type(_contained(error)).__name__
                logger.debug("a batch of %d failed (%s): one by one", len(requests), cause)
        return [_response(self, request) for request in requests]

    def release(self, policy: Policy) -> None:  # noqa: B027 - most hold nothing for an episode
        """The episode of an opened policy is over."""

    def close(self) -> None:  # noqa: B027 - most hold nothing but memory
        """No more episodes."""


class EachEpisode(PolicySource):
    """A source whose policies are cheap: it makes a new one for each episode."""

    def __init__(self, make: Callable[[], Policy]) -> None:
        self._make = make

    def open(self, sim: Any) -> Policy:
        return self._make()


class Privileged(PolicySource):
    """A source whose policies read the simulator that they act in."""

    reads_simulator = True

    def __init__(self, make: Callable[[Any], Policy]) -> None:
        self._make = make

    def open(self, sim: Any) -> Policy:
        if sim is None:
            raise UserError("this policy reads the simulator: it cannot act behind a connection")
        return self._make(sim)


def _response(source: PolicySource, request: PolicyRequest) -> PolicyResponse:
    try:
        return _checked(source.act([request]), 1)[0]
    except BaseException as error:  # noqa: BLE001 - it is the response, and its reader raises it
        return _contained(error)


def _contained(error: BaseException) -> Exception:
    """What a policy raised, as an error that ends neither a loop nor a process. What ends this
    process, Ctrl-C for one, comes in its first thread, and goes on."""
    first = threading.current_thread() is threading.main_thread()
    if first and isinstance(error, KeyboardInterrupt | SystemExit):
        raise error
    if isinstance(error, Exception) and not isinstance(error, StopIteration | StopAsyncIteration):
        return error
    contained = RuntimeError(f"the policy raised {type(error).__name__}")
    contained.__cause__ = error
    return contained.with_traceback(error.__traceback__)


def _checked(responses: Sequence[Any], count: int) -> list[Any]:
    if len(responses) != count or not all(isinstance(r, ActionChunk) for r in responses):
        kinds = sorted({type(r).__name__ for r in responses})
        raise TypeError(
            f"expected {count} ActionChunks of a policy, got {len(responses)} of {kinds}"
        )
    return list(responses)
