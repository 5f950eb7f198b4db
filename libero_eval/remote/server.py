"""A policy server, for any Python callable, in an environment with NumPy, websockets and msgpack.

    import numpy as np
    from libero_eval.remote.server import function_source, serve

    def act(observation):  # see Observation in invact_vla/schema.py
        return np.zeros((8, 7), np.float32)  # 8 actions in [-1, 1], LIBERO's convention

    serve(function_source(act, needs=("agentview",), chunk=8), name="mine", port=8000)

A policy with a memory is a class with `needs`, `chunk`, `reset(seed)` and `act(observation) ->
ActionChunk`: `serve(EachEpisode(MyPolicy), ...)` makes one for each episode. Nothing that comes in is
ever executed or unpickled, but there is no password: beyond loopback, anyone who reaches the port can
use the policy.
"""

import asyncio
import errno
import logging
import signal
import traceback
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as listen
from websockets.exceptions import ConnectionClosed

from invact_vla.errors import UserError
from invact_vla.schema import ActionChunk, Observation, Policy
from libero_eval.policy_source import EachEpisode, PolicySource
from libero_eval.remote import MAX_BYTES, messages
from libero_eval.remote.batcher import Batcher
from libero_eval.remote.messages import PolicyCard, WireError

logger = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "::1", "localhost")
MAX_EPISODES = 1024  # that one client may have open
Value = TypeVar("Value")
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
    ready: Callable[[str], None] = logger.info,
    stop_on: Sequence[int] = (signal.SIGINT, signal.SIGTERM),
) -> None:
    """Serve policies until a signal of `stop_on` comes. For the first thread of a process.

    max_batch, max_wait_ms: see Batcher. max_bytes: of a message. keep_s: how long the episodes of a
    client that is gone are kept for its return. ready: called with the URL; port 0 chooses one.
    Raises UserError for a port in use, and for a policy that reads the simulator.
    """
    if source.reads_simulator:
        raise UserError(f"policy {name!r} reads the simulator: it cannot act behind a connection")
    first = source.open(None)
    card = PolicyCard(
        name=name, needs=tuple(first.needs), chunk=first.chunk, hash=policy_hash,
        max_bytes=max_bytes,
    )  # fmt: skip
    source.release(first)
    server = _Server(source, card, max_batch, max_wait_ms / 1000, keep_s)
    try:
        asyncio.run(server.run(host, port, ready, stop_on))
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES):
            raise
        raise UserError(
            f"cannot listen at {host}:{port}: {error.strerror or error}; choose another --port, or "
            "end the program that uses it"
        ) from error


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


class _RequestError(Exception):
    """A call that cannot be answered. kind: one of the constants in `messages`."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass
class _Episode:
    """policy: its own. last: id of its last call, and the answer to that, also to come."""

    policy: Policy
    last_id: int = -1
    last: "asyncio.Task[dict[str, Any]] | None" = None


@dataclass
class _Client:
    """What is known of a client over all its connections; connections: how many it has now."""

    connections: int = 0
    episodes: dict[int, _Episode] = field(default_factory=dict)


class _Server:
    """The server's state; everything but the policies runs in the event loop."""

    def __init__(
        self,
        source: PolicySource,
        card: PolicyCard,
        max_batch: int,
        max_wait_s: float,
        keep_s: float,
    ) -> None:
        self._source, self._card, self._keep_s = source, card, keep_s
        self._max_batch, self._max_wait_s = max_batch, max_wait_s
        self._clients: dict[str, _Client] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(
        self, host: str, port: int, ready: Callable[[str], None], stop_on: Sequence[int]
    ) -> None:
        """Listen until a signal comes."""
        self._batcher = Batcher(self._source, self._running, self._max_batch, self._max_wait_s)
        worker = asyncio.create_task(self._batcher.run())
        try:
            # origins=[None]: web pages in a browser on this machine are refused
            async with listen(
                self._connection, host, port, compression=None, max_size=self._card.max_bytes,
                origins=[None], close_timeout=1, ping_timeout=None,
            ) as server:  # fmt: skip
                address = next(iter(server.sockets)).getsockname()
                if address[0] not in LOOPBACK and host not in LOOPBACK:
                    logger.warning("%s is no loopback address: anyone who reaches it can act", host)
                shown = f"[{address[0]}]" if ":" in address[0] else address[0]
                ready(f"ws://{shown}:{address[1]}")
                await _signal(stop_on)
        finally:
            worker.cancel()
            self._batcher.close()
            logger.info(
                "%s: %d calls in %d batches", self._card.name, self._batcher.requests,
                self._batcher.batches,
            )  # fmt: skip

    def _running(self) -> int:
        return sum(len(c.episodes) for c in self._clients.values() if c.connections)

    async def _connection(self, socket: ServerConnection) -> None:
        """A connection's life."""
        try:
            name, client = await self._greet(socket)
        except (_RequestError, WireError) as error:
            kind = getattr(error, "kind", messages.BAD_REQUEST)
            with suppress(ConnectionClosed):
                await socket.send(messages.encode(_error(None, kind, str(error))))
            return
        except ConnectionClosed:
            return
        client.connections += 1
        try:
            async for data in socket:
                self._keep(asyncio.create_task(self._answer(socket, client, data)))
        except ConnectionClosed as closed:
            logger.warning("the connection of a client broke: %s", closed)
        finally:
            client.connections -= 1
            self._keep(asyncio.create_task(self._forget(name)))

    def _keep(self, task: "asyncio.Task[None]") -> None:
        """Hold a task until it is done: the event loop does not."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _greet(self, socket: ServerConnection) -> tuple[str, _Client]:
        hello = messages.decode(await socket.recv())
        if hello.get("version") != messages.VERSION:
            raise _RequestError(
                messages.BAD_VERSION,
                f"this server speaks version {messages.VERSION}, the client "
                f"{hello.get('version')!r}: install the same release on both sides",
            )
        name = hello.get("client")
        if hello.get("call") != "hello" or not isinstance(name, str):
            raise _RequestError(messages.BAD_REQUEST, "expected a hello with the client's name")
        await socket.send(messages.encode(self._card.to_message()))
        return name, self._clients.setdefault(name, _Client())

    async def _forget(self, name: str) -> None:
        """Drop the episodes of a client that does not come back."""
        await asyncio.sleep(self._keep_s)
        client = self._clients.get(name)
        if client is None or client.connections:
            return
        del self._clients[name]
        for episode in client.episodes.values():
            await self._batcher.call(self._source.release, episode.policy)

    async def _answer(self, socket: ServerConnection, client: _Client, data: object) -> None:
        number = None
        try:
            message = messages.decode(data)
            number = message.get("id")
            if not isinstance(number, int):
                raise WireError(f"expected a number as id, got {number!r}")
            answer = await self._dispatch(client, number, message)
        except (_RequestError, WireError) as error:
            kind = getattr(error, "kind", messages.BAD_REQUEST)
            answer = _error(number, kind, str(error))
        with suppress(ConnectionClosed):  # a client that comes back asks again
            await socket.send(messages.encode(answer))

    async def _dispatch(
        self, client: _Client, number: int, message: dict[str, Any]
    ) -> dict[str, Any]:
        """Do what the message asks for, once, however often it is asked."""
        call, key = message.get("call"), message.get("episode")
        if call not in ("reset", "act", "release") or not isinstance(key, int):
            raise WireError(f"expected reset, act or release of an episode, got {call!r} {key!r}")
        if call == "release":
            episode = client.episodes.pop(key, None)
            if episode is not None:
                await self._batcher.call(self._source.release, episode.policy)
            return {"id": number}
        if call == "reset" and key not in client.episodes:
            if len(client.episodes) >= MAX_EPISODES:
                raise _RequestError(messages.BAD_REQUEST, f"more than {MAX_EPISODES} open episodes")
            opened = self._batcher.call(self._source.open, None)
            client.episodes[key] = _Episode(await _of_policy(opened))
        if key not in client.episodes:
            raise _RequestError(
                messages.NO_EPISODE,
                f"episode {key} is unknown here: the server was started anew meanwhile, or was "
                f"without a word from the client for more than {self._keep_s:g} s",
            )
        episode = client.episodes[key]
        if episode.last_id != number:
            if episode.last is not None and not episode.last.done():
                raise WireError(f"episode {key} has a call that is not answered yet")
            episode.last_id = number
            work = self._reset if call == "reset" else self._act
            episode.last = asyncio.create_task(work(episode, number, message))
        assert episode.last is not None
        return await asyncio.shield(episode.last)

    async def _reset(
        self, episode: _Episode, number: int, message: dict[str, Any]
    ) -> dict[str, Any]:
        seed = message.get("seed")
        if not isinstance(seed, int):
            raise WireError(f"expected a number as seed, got {seed!r}")
        await _of_policy(self._batcher.call(episode.policy.reset, seed))
        return {"id": number}

    async def _act(self, episode: _Episode, number: int, message: dict[str, Any]) -> dict[str, Any]:
        observation = messages.observation_of(message.get("observation"), self._card.needs)
        chunk = await _of_policy(self._batcher.act(episode.policy, observation))
        return {"id": number, "actions": chunk.values}


async def _of_policy(result: Awaitable[Value]) -> Value:
    """What a policy returns; what it raises is an answer."""
    try:
        return await result
    except UserError as error:
        raise _RequestError(messages.POLICY_FAILED, str(error)) from error
    except Exception as error:
        logger.exception("the policy failed")  # the client learns the cause alone
        raise _RequestError(messages.POLICY_FAILED, _cause(error)) from error


def _cause(error: Exception) -> str:
    """In one line: what was raised, and where."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" (in {frames[-1].name}, {Path(frames[-1].filename).name}:{frames[-1].lineno})"
    return f"{type(error).__name__}: {error}{where if frames else ''}"


def _error(number: int | None, kind: str, message: str) -> dict[str, Any]:
    return {"id": number, "error": {"kind": kind, "message": message}}


async def _signal(numbers: Sequence[int]) -> None:
    """Return when a signal comes."""
    stop = asyncio.Event()
    for number in numbers:
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
