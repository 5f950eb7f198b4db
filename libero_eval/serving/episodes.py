"""The clients of a policy server, their episodes, and what their calls do."""

import asyncio
import logging
import time
import traceback
from collections.abc import Awaitable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from invact_vla.core.errors import UserError
from invact_vla.core.schema import Policy
from libero_eval.policy_source import PolicySource
from libero_eval.serving import messages
from libero_eval.serving.batcher import Batcher, PolicyRaised
from libero_eval.serving.messages import PolicyCard, WireError, is_whole
from libero_eval.serving.text import RateLimitedLog, cause_first, one_line, shown, text_of

logger = logging.getLogger(__name__)

MAX_EPISODES = 1024  # that one client may have open
MAX_AWAY = 1024  # episodes, of all clients together, that wait for the return of clients
Message = dict[str, Any]


@dataclass
class _Episode:
    policy: Policy | None = None  # its own, once opened
    last_id: int | None = None  # of its last call
    last: "asyncio.Task[Message] | None" = None  # the response to that, also to come


@dataclass(eq=False)
class Client:
    """What is known of a client over all its connections."""

    name: str
    connections: int = 0  # how many it has now
    away_since: float = 0.0  # when the last of them ended
    episodes: dict[int, _Episode] = field(default_factory=dict)


class Episodes:
    """All clients of a server. Everything but the policies runs in the event loop."""

    def __init__(
        self,
        source: PolicySource,
        card: PolicyCard,
        max_batch: int,
        max_wait_s: float,
        keep_s: float,
    ) -> None:
        """keep_s: how long the episodes of a client that is gone are kept for its return."""
        self._source, self._card, self._keep_s = source, card, keep_s
        self._clients: dict[str, Client] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures = RateLimitedLog(logger, every_s=1.0)
        self.batcher = Batcher(source, self._running, max_batch, max_wait_s)

    def join(self, name: str) -> Client:
        """The client of one more connection."""
        client = self._clients.setdefault(name, Client(name))
        client.connections += 1
        return client

    def leave(self, client: Client) -> None:
        """A connection of a client has ended."""
        client.connections -= 1
        client.away_since = time.monotonic()
        if not client.connections:
            self._forget_some()

    async def forget_in_time(self) -> None:
        """Forget clients that have been away for keep_s, until cancelled."""
        while True:
            await asyncio.sleep(min(5.0, max(0.05, self._keep_s / 4)))
            self._forget_some()

    async def respond(self, client: Client, data: object) -> Message:
        """The response to the bytes of a call, whatever they are."""
        number = None
        try:
            message = messages.decode(data)
            if not is_whole(message.get("id")):
                raise WireError(f"expected a number as id, got {shown(message.get('id'))}")
            number = message["id"]
            return await self._dispatch(client, number, message)
        except WireError as error:
            return error_response(number, error.kind, str(error))
        except Exception as error:  # noqa: BLE001 - every call has a response
            self._failures.exception("a call failed in the server itself", error)
            return error_response(
                number, messages.BAD_REQUEST, f"the server failed: {_cause(error)}"
            )

    def _running(self) -> int:
        return sum(len(c.episodes) for c in self._clients.values() if c.connections)

    async def _dispatch(self, client: Client, number: int, message: Message) -> Message:
        """Do what the message asks for, once, however often it is asked."""
        call, key = message.get("call"), message.get("episode")
        calls = ("reset", "act", "release")
        if not isinstance(call, str) or call not in calls or not is_whole(key):
            raise WireError(
                f"expected reset, act or release of an episode, got {shown(call)} {shown(key)}"
            )
        if call == "release":
            episode = client.episodes.pop(key, None)
            if episode is not None:
                await self._release(client, episode)
            return {"id": number}
        episode = self._episode(client, call, key)
        if episode.last is None or episode.last_id != number:
            if episode.last is not None and not episode.last.done():
                raise WireError(f"episode {key} has a call without a response yet")
            work = self._reset if call == "reset" else self._act
            episode.last_id = number
            episode.last = asyncio.create_task(_responded(number, work(client, episode, message)))
        response = await asyncio.shield(episode.last)
        if episode.policy is None and client.episodes.get(key) is episode:
            del client.episodes[key]  # it could not be opened
        return response

    def _episode(self, client: Client, call: str, key: int) -> _Episode:
        """The episode of a call; a new one has its place before its policy is opened."""
        if call == "reset" and key not in client.episodes:
            if len(client.episodes) >= MAX_EPISODES:
                raise WireError(f"more than {MAX_EPISODES} open episodes")
            client.episodes[key] = _Episode()
        if key not in client.episodes:
            raise WireError(
                f"episode {key} is unknown here: the server was started anew meanwhile, or was "
                f"without a word from the client for more than {self._keep_s:g} s",
                messages.NO_EPISODE,
            )
        return client.episodes[key]

    async def _reset(self, client: Client, episode: _Episode, message: Message) -> Message:
        seed = message.get("seed")
        if not is_whole(seed):
            raise WireError(f"expected a number as seed, got {shown(seed)}")
        policy = episode.policy
        if policy is None:
            opening = self.batcher.call(client.name, self._source.open, None)
            policy = episode.policy = await self._of_policy(opening)
        await self._of_policy(self.batcher.call(client.name, policy.reset, seed))
        return {}

    async def _act(self, client: Client, episode: _Episode, message: Message) -> Message:
        if episode.policy is None:
            raise WireError("the episode was not opened", messages.NO_EPISODE)
        observation = messages.observation_of(message.get("observation"), self._card.needs)
        acting = self.batcher.act(client.name, episode.policy, observation)
        return {"actions": (await self._of_policy(acting)).values}

    async def _release(self, client: Client, episode: _Episode) -> None:
        """End an episode that is no longer the client's, after the call that it is in."""
        if episode.last is not None:
            await asyncio.wait({episode.last})
        if episode.policy is not None:
            releasing = self.batcher.call(client.name, self._source.release, episode.policy)
            await self._of_policy(releasing)

    def _forget_some(self) -> None:
        """Drop the clients that are away too long, and the longest gone of too many episodes."""
        now, kept = time.monotonic(), 0
        away = [c for c in self._clients.values() if not c.connections]
        for client in sorted(away, key=lambda c: c.away_since, reverse=True):
            kept += len(client.episodes)
            late = now - client.away_since >= self._keep_s
            if not client.episodes or late or kept > MAX_AWAY:
                del self._clients[client.name]
                task = asyncio.create_task(self._release_all(client))
                self._tasks.add(task)  # held until it is done: the event loop does not
                task.add_done_callback(self._tasks.discard)

    async def _release_all(self, client: Client) -> None:
        for episode in list(client.episodes.values()):  # one that was not opened leaves meanwhile
            try:
                await self._release(client, episode)
            except WireError as error:
                logger.debug("an episode was not released: %s", error)

    async def _of_policy(self, result: Awaitable[Any]) -> Any:
        """What a policy returns; what it raises is a response."""
        try:
            return await result
        except PolicyRaised as raised:
            error = raised.error
            if isinstance(error, UserError):
                raise WireError(one_line(str(error), 1000), messages.POLICY_FAILED) from error
            self._failures.exception(
                "the policy failed", error
            )  # the client learns the cause alone
            raise WireError(_cause(error), messages.POLICY_FAILED) from error


async def _responded(number: int, work: Awaitable[Message]) -> Message:
    """The response of a call's work; a task of it raises nothing that nobody would hear."""
    try:
        return {"id": number, **await work}
    except WireError as error:
        return error_response(number, error.kind, str(error))


def error_response(number: int | None, kind: str, message: str) -> Message:
    """What a client gets for a call that failed. kind: see `messages`."""
    return {"id": number, "error": {"kind": kind, "message": message}}


def _cause(error: BaseException) -> str:
    """In one line: what was raised, and where."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return cause_first(text_of(error))
    where = f" (in {frames[-1].name}, {Path(frames[-1].filename).name}:{frames[-1].lineno})"
    return cause_first(text_of(error)) + where
