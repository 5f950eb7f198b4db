"""A policy server, for any Python callable, in an environment with NumPy, websockets and msgpack.

    import numpy as np
    from libero_eval.serving.server import function_source, serve

    def act(observation):  # see Observation in invact_vla/core/schema.py
        return np.zeros((8, 7), np.float32)  # 8 actions in [-1, 1], LIBERO's convention

    serve(function_source(act, needs=("agentview",), chunk=8), name="mine", port=8000)

A policy with a memory is a class with `needs`, `chunk`, `reset(seed)` and `act(observation) ->
ActionChunk`: `serve(EachEpisode(MyPolicy), ...)` makes one for each episode. Nothing that comes in is
ever executed or unpickled. Beyond loopback give a token: without one, anyone who reaches the port can
use the policy.
"""

import asyncio
import errno
import logging
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from invact_vla.core.errors import UserError
from invact_vla.core.schema import ActionChunk, Observation
from libero_eval.policy_source import EachEpisode, PolicySource
from libero_eval.serving import MAX_BYTES
from libero_eval.serving.episodes import Episodes
from libero_eval.serving.listener import Listener
from libero_eval.serving.messages import PolicyCard, WireError

logger = logging.getLogger(__name__)

END_S = 1.0  # that a running call of the policy has to end in when the server stops
Act = Callable[[Observation], np.ndarray]


def serve(
    source: PolicySource,
    *,
    name: str,
    policy_hash: str = "",
    host: str = "127.0.0.1",
    port: int = 8000,
    max_batch: int = 16,
    max_wait_ms: float = 5.0,
    max_bytes: int = MAX_BYTES,
    keep_s: float = 60.0,
    token: str | None = None,
    ready: Callable[[str], None] = logger.info,
    stop_on: Sequence[int] = (signal.SIGINT, signal.SIGTERM),
) -> None:
    """Serve policies until a signal of `stop_on` comes. For the first thread of a process.

    max_batch, max_wait_ms: see Batcher. max_bytes: of a message. keep_s: how long the episodes of a
    client that is gone are kept for its return. token: what clients must know. ready: called with
    the URL; port 0 chooses one. Raises UserError for a port in use, for a policy that reads the
    simulator, and for one that cannot be declared.
    """
    if source.reads_simulator:
        raise UserError(f"policy {name!r} reads the simulator: it cannot act behind a connection")
    card = _card(source, name, policy_hash, max_bytes)
    episodes = Episodes(source, card, max_batch, max_wait_ms / 1000, keep_s)
    listener = Listener(episodes, card, keep_s, token)
    try:
        asyncio.run(listener.run(host, port, ready, stop_on))
    except OSError as error:
        expected = (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES)
        if error.errno not in expected and not isinstance(error, socket.gaierror):
            raise
        raise UserError(
            f"cannot listen at {host}:{port}: {error.strerror or error}; choose another --port or "
            "--host, or end the program that uses it"
        ) from error
    finally:
        episodes.batcher.close(END_S)


def _card(source: PolicySource, name: str, policy_hash: str, max_bytes: int) -> PolicyCard:
    first = source.open(None)
    try:
        return PolicyCard(
            name=name, needs=tuple(first.needs), chunk=first.chunk, hash=policy_hash,
            max_bytes=max_bytes,
        )  # fmt: skip
    except WireError as error:
        raise UserError(f"policy {name!r} cannot be served: {error}") from error
    finally:
        source.release(first)


def function_source(act: Act, *, needs: tuple[str, ...], chunk: int) -> PolicySource:
    """A source of policies without memory. act: Observation -> (N, 7) in [-1, 1]."""
    return EachEpisode(lambda: _FunctionPolicy(act, needs, chunk))


@dataclass
class _FunctionPolicy:
    function: Act
    needs: tuple[str, ...]
    chunk: int

    def reset(self, seed: int) -> None:
        """Nothing to forget."""

    def act(self, observation: Observation) -> ActionChunk:
        return ActionChunk(np.asarray(self.function(observation), np.float32))
