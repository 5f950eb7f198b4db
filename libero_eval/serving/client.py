"""The client of a policy server: a source whose policies live elsewhere.

Three waits, each with its own limit: for somebody to listen, for the first response (servers load and
compile their models late), and for every response after it.
"""

import itertools
import logging
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext, suppress
from typing import Any, cast

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.sync.client import ClientConnection, connect

from invact_vla.core.errors import UserError
from invact_vla.core.schema import LIBERO_ACTIONS, ActionChunk, Observation, Policy
from libero_eval.policy_source import PolicyRequest, PolicyResponse, PolicySource
from libero_eval.serving import MAX_BYTES, messages
from libero_eval.serving.address import TOKEN_VARIABLE, ServerUrl, dial, waiting
from libero_eval.serving.messages import PolicyCard, WireError
from libero_eval.serving.responses import ResponseReader, error_of
from libero_eval.serving.text import one_line, shown

logger = logging.getLogger(__name__)
CONNECT_S = 10.0  # that a connection may take
TOO_BIG = 1009  # websocket's close code for a message over the limit


class Link:
    """One connection to a server, made again once if it breaks. Not thread-safe."""

    def __init__(
        self, url: str, timeout_s: float, first_response_s: float = 300.0, wait_s: float = 0.0
    ) -> None:
        """Connect. Raises UserError if nobody listens, or if it is not a server of ours.

        url: may hold a password. timeout_s: for a response; first_response_s: for each step until the
        first action has come; wait_s: for somebody to listen.
        """
        self.url = ServerUrl(url)
        self._timeout_s, self._first_response_s = timeout_s, first_response_s
        self._wait_s = wait_s
        self._has_acted, self._started = False, time.monotonic()
        self._client = uuid.uuid4().hex
        self._ids = itertools.count()
        self._socket, self._close, self.card = self._connect()
        self._wait_s = 0.0  # one that goes away later does not come back
        self.responses = ResponseReader(self.url, self.card.chunk)

    def request(self, calls: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Send calls together and return their responses, in the order of the calls.

        After a broken connection, calls without a response are sent once more with their old ids, by
        which the server knows those it has already done. Raises UserError when that fails as well,
        when a response takes longer than the timeout, or when a message is too big.
        """
        numbered = [(next(self._ids), call) for call in calls]
        packets = {n: messages.encode({"id": n, **call}) for n, call in numbered}
        for packet in packets.values():
            if len(packet) > self.card.max_bytes:
                raise UserError(
                    f"{self.url} takes messages of at most {self.card.max_bytes} bytes, this "
                    f"one has {len(packet)}: raise its --max_bytes, or render smaller frames"
                )
        responses: dict[int, dict[str, Any]] = {}
        try:
            self._exchange(packets, responses)
        except ConnectionClosed as broken:
            self._reconnect(broken)
            left = {n: packet for n, packet in packets.items() if n not in responses}
            try:
                self._exchange(left, responses)
            except ConnectionClosed as again:
                raise UserError(
                    f"{self.url} closed the connection twice ({_words(again)}): see the server's "
                    "messages"
                ) from again
        return [responses[n] for n in packets]

    def close(self) -> None:
        """Tell the server that we go."""
        self._close()

    def _exchange(self, packets: dict[int, bytes], responses: dict[int, dict[str, Any]]) -> None:
        """Send packets, and fill `responses` until each has its own."""
        limit = self._timeout_s if self._has_acted else self._first_response_s
        deadline = time.monotonic() + limit
        for packet in packets.values():  # a server that does not read breaks the connection
            self._limit(max(0.1, deadline - time.monotonic()))
            self._socket.send(packet)
        self._limit(None)  # between two calls the server may be silent for as long as it likes
        with self._waiting("its first response", limit):
            while any(n not in responses for n in packets):
                response = self._receive(deadline, limit)
                number = response.get("id")
                if messages.is_whole(number) and number in packets:
                    responses[number] = response
                elif number is None:
                    raise UserError(f"{self.url} does not understand us: {error_of(response)}")
        if not self._has_acted and any("actions" in responses[n] for n in packets):
            self._has_acted = True
            logger.info("%s: first action after %.0f s", self.url, time.monotonic() - self._started)

    def _limit(self, seconds: float | None) -> None:
        """How long the socket may take to send, or to receive what it begins to wait for."""
        with suppress(OSError):  # closed already, as `send` says
            self._socket.socket.settimeout(seconds)

    def _waiting(self, what: str, limit_s: float) -> AbstractContextManager[None]:
        """Says now and then that nothing has come yet, until the first action has."""
        return nullcontext() if self._has_acted else waiting(self.url, what, limit_s)

    def _receive(self, deadline: float, limit_s: float) -> dict[str, Any]:
        left = deadline - time.monotonic()
        try:
            if left <= 0:  # one that always has something to say is no better than a silent one
                raise TimeoutError
            return messages.decode(self._socket.recv(left))
        except TimeoutError as error:
            option = "timeout_s" if self._has_acted else "first_response_s"
            raise UserError(
                f"{self.url} gave no response within {limit_s:g} s: raise --policy.{option} if the "
                "policy needs longer, else see the server's messages"
            ) from error
        except WireError as error:
            raise UserError(f"{self.url} responded with {error}") from error

    def _reconnect(self, broken: ConnectionClosed) -> None:
        if broken.rcvd is not None and broken.rcvd.code == TOO_BIG:
            raise UserError(
                f"{self.url} refused a message as too big: {_words(broken)}"
            ) from broken
        logger.warning("%s: the connection broke (%s), connecting again", self.url, _words(broken))
        self._close()
        self._socket, self._close, card = self._connect()
        if card != self.card:
            raise UserError(
                f"{self.url} serves another policy than before the connection broke: "
                f"{card.name} {card.hash}, was {self.card.name} {self.card.hash}"
            ) from broken

    def _connect(self) -> tuple[ClientConnection, Callable[[], None], PolicyCard]:
        """The connection, what closes it, and what the server says of its policy."""
        listener = dial(self.url, CONNECT_S, self._wait_s)
        limit = self._timeout_s if self._has_acted else self._first_response_s
        opened = ExitStack()
        hello = {"call": "hello", "version": messages.VERSION, "client": self._client}
        try:
            with self._waiting("the server's greeting", limit), opened:  # closes what is left in it
                opened.enter_context(closing(listener))
                socket = opened.enter_context(
                    connect(
                        self.url.full, sock=listener, compression=None, proxy=None, open_timeout=limit,
                        max_size=MAX_BYTES, close_timeout=1, ping_timeout=None,
                    )
                )  # fmt: skip
                socket.send(messages.encode(hello))
                card = self._card(messages.decode(socket.recv(limit)))
                return socket, opened.pop_all().close, card
        except TimeoutError as error:
            raise UserError(
                f"{self.url} took the connection but gave no greeting within {limit:g} s: raise "
                "--policy.first_response_s if it still loads, else see the server's messages"
            ) from error
        except InvalidURI as error:
            raise UserError(f"{self.url} is no address of a policy server: {error.msg}") from error
        except (OSError, InvalidHandshake, EOFError, ConnectionClosed, WireError) as error:
            if isinstance(error, InvalidStatus) and error.response.status_code == 401:
                raise UserError(
                    f"{self.url} wants another token: give it in {TOKEN_VARIABLE}, or as ws://user:TOKEN@HOST"
                ) from error
            raise UserError(
                f"{self.url} does not respond as a policy server does: {_words(error)}"
            ) from error

    def _card(self, response: dict[str, Any]) -> PolicyCard:
        if "error" in response:
            raise UserError(f"{self.url} refuses us: {error_of(response)}")
        version = response.get("version")
        if not messages.is_whole(version) or version != messages.VERSION:
            raise UserError(
                f"{self.url} speaks version {shown(version)}, this client "
                f"{messages.VERSION}: install the same release on both sides"
            )
        card = PolicyCard.from_message(response)
        if card.actions != LIBERO_ACTIONS:
            actions = one_line(str(card.actions), 400)
            raise UserError(f"{self.url} acts in {actions}, LIBERO in {LIBERO_ACTIONS}")
        return card


class RemoteSource(PolicySource):
    """Policies of one server, over one connection."""

    batched = True

    def __init__(self, link: Link) -> None:
        self.link = link
        self._episodes = itertools.count()

    @property
    def card(self) -> PolicyCard:
        """What the server says of its policy."""
        return self.link.card

    def open(self, sim: Any) -> Policy:
        return RemotePolicy(self, next(self._episodes))

    def act(self, requests: Sequence[PolicyRequest]) -> list[ActionChunk]:
        """Send all observations together, so that the server can compute them together."""
        responses = self.act_apart(requests)
        for response in responses:
            if isinstance(response, Exception):
                raise response
        return cast(list[ActionChunk], responses)

    def act_apart(self, requests: Sequence[PolicyRequest]) -> list[PolicyResponse]:
        """The same; each request is sent once, since the server's policies have a memory."""
        calls = [
            {
                "call": "act",
                "episode": cast(RemotePolicy, policy).episode,
                "observation": messages.observation_to_message(observation),
            }
            for policy, observation in requests
        ]
        try:
            return [self.link.responses.chunk(response) for response in self.link.request(calls)]
        except UserError as error:
            return [error for _ in requests]

    def release(self, policy: Policy) -> None:
        """Tell the server; one that cannot be reached forgets by itself."""
        episode = cast(RemotePolicy, policy).episode
        try:
            self.link.request([{"call": "release", "episode": episode}])
        except UserError as error:
            logger.debug("episode %d was not released: %s", episode, error)

    def close(self) -> None:
        self.link.close()


class RemotePolicy:
    """One episode of a policy on a server."""

    def __init__(self, source: RemoteSource, episode: int) -> None:
        self.needs, self.chunk = source.card.needs, source.card.chunk
        self.episode = episode
        self._source = source

    def reset(self, seed: int) -> None:
        link = self._source.link
        [response] = link.request([{"call": "reset", "episode": self.episode, "seed": seed}])
        if "error" in response:
            raise UserError(f"{link.url}: {error_of(response)}")

    def act(self, observation: Observation) -> ActionChunk:
        return self._source.act([(self, observation)])[0]


def _words(error: BaseException) -> str:
    """What a library says of the other side, whose words may be in it."""
    return one_line(str(error)) or type(error).__name__
