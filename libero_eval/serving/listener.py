"""A policy server's ear: how many connections it has, what each may send and leave unread, greetings,
and what is read and sent."""

import asyncio
import functools
import hmac
import ipaddress
import logging
import resource
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, basic_auth
from websockets.asyncio.server import serve as listen
from websockets.exceptions import ConnectionClosed

from libero_eval.serving import messages
from libero_eval.serving.episodes import Client, Episodes, error_response
from libero_eval.serving.messages import PolicyCard, WireError
from libero_eval.serving.text import RateLimitedLog, one_line, shown

logger = logging.getLogger(__name__)

GREETING_S = 10.0  # that a client has for its greeting
SEND_S = 30.0  # that a client has to read a response
CLOSE_S = 2.0  # that clients have when the server stops
MAX_PENDING = 256  # calls of a connection that are read before the first of them has its response
BACKLOG = 32  # connections that are taken at once
MAX_CONNECTIONS = 512
GREETING_BYTES = 256 << 10  # that may come before a client is known
MAX_BUFFERED = 512 << 20  # bytes of messages that are not read yet, of all connections together
MAX_UNSENT = 4 << 20  # bytes that a client leaves unread, responses to its pings for one
MAX_FRAMES = 16 << 10  # between two messages that are read


class ConnectionLimits:
    """The connections of a server. One that is full closes those that hold a place for nothing."""

    def __init__(self, max_bytes: int, keep_s: float) -> None:
        """max_bytes: of a message; keep_s: silence after which an open episode holds no place."""
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.most = max(1, min(MAX_CONNECTIONS, files // 2))
        self.max_bytes, self._keep_s = max_bytes, keep_s
        self._inside: dict[Connection, None] = {}  # in the order in which they came
        self.buffered = 0
        self._log = RateLimitedLog(logger, every_s=60.0)

    def enter(self, connection: "Connection") -> None:
        """Take a connection in, in place of another or not at all if there are too many."""
        if len(self._inside) >= self.most:
            leaver = self._idle_longest() or connection
            self._log.warning(
                "%d connections are open, the most that are held: the idle ones are closed for new "
                "ones", self.most,
            )  # fmt: skip
            leaver.end()
            if leaver is connection:
                return
        self._inside[connection] = None

    def leave(self, connection: "Connection") -> None:
        """A connection has ended."""
        self._inside.pop(connection, None)
        self.buffered -= connection.unread
        connection.unread = 0

    def make_space(self) -> None:
        """End the connection with most unread bytes while there are too many of all."""
        while self.buffered > MAX_BUFFERED and self._inside:
            max(self._inside, key=lambda c: c.unread).end()

    def _idle_longest(self) -> "Connection | None":
        """The oldest that has not greeted, else the longest silent one that runs no episode."""
        now = time.monotonic()
        strangers = (c for c in self._inside if c.client is None)
        has_episodes = {c: c.client is not None and bool(c.client.episodes) for c in self._inside}
        idle = [
            c for c, has in has_episodes.items() if not has or now - c.last_message > self._keep_s
        ]
        return next(strangers, None) or min(idle, key=lambda c: c.last_message, default=None)


class Connection(ServerConnection):
    """A connection that ends when it sends or leaves unread more than its share.

    client: whose it is, once that has greeted; last_message: time of its last message.
    """

    def __init__(self, limits: ConnectionLimits, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._limits = limits
        self.unread, self._frames = 0, 0
        self.client: Client | None = None
        self.last_message = time.monotonic()

    async def read(self) -> Any:
        """The next message. Raises ConnectionClosed."""
        data = await self.recv()
        self._limits.buffered -= self.unread
        self.unread, self._frames, self.last_message = 0, 0, time.monotonic()
        return data

    def end(self) -> None:
        """Close at once, without the good manners that a stranger could ignore."""
        self._limits.leave(self)
        self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._limits.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._limits.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self.unread += len(data)
        self._limits.buffered += len(data)
        # one message that waits, one behind it, and one that is being received
        share = 3 * self._limits.max_bytes + GREETING_BYTES if self.client else GREETING_BYTES
        super().data_received(data)
        unsent = self.transport.get_write_buffer_size()
        if self.unread > share or unsent > MAX_UNSENT or self._frames > MAX_FRAMES:
            self.end()
        self._limits.make_space()

    def process_event(self, event: Any) -> None:
        self._frames += 1
        super().process_event(event)


class Listener:
    """Passes what clients send to their episodes, and the responses back."""

    def __init__(
        self, episodes: Episodes, card: PolicyCard, keep_s: float, token: str | None
    ) -> None:
        """token: what clients must give as the password of their URL."""
        self._episodes, self._card, self._token = episodes, card, token
        self._limits = ConnectionLimits(card.max_bytes, keep_s)
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = RateLimitedLog(logger, every_s=10.0)

    async def run(
        self, host: str, port: int, ready: Callable[[str], None], stop_on: Sequence[int]
    ) -> None:
        """Listen until a signal comes. Raises RuntimeError if the work stops by itself."""
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        loop.set_exception_handler(self._note)
        for number in stop_on:
            loop.add_signal_handler(number, stop.set)
        work = [
            asyncio.create_task(self._episodes.batcher.run(), name="the task that asks the policy"),
            asyncio.create_task(
                self._episodes.forget_in_time(), name="the task that forgets clients"
            ),
        ]
        stopped = asyncio.create_task(stop.wait())
        server = await self._listen(host, port)
        try:
            ready(self._url(server))
            done, _ = await asyncio.wait([stopped, *work], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopped}:  # without it nobody would get a response
                cause = None if task.cancelled() else task.exception()
                what = f"{task.get_name()} has ended: the server cannot go on"
                logger.critical("%s", what, exc_info=cause)
                raise RuntimeError(what) from cause
        finally:
            server.close()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(server.wait_closed(), CLOSE_S)
            batcher = self._episodes.batcher
            logger.info(
                "%s: %d calls in %d batches", self._card.name, batcher.requests, batcher.batches
            )

    async def _listen(self, host: str, port: int) -> Server:
        # compared in a time that says nothing of the token
        knows = lambda _, given: hmac.compare_digest(given.encode(), (self._token or "").encode())
        access = basic_auth("policy", check_credentials=knows) if self._token else None
        # origins=[None]: web pages in a browser on this machine are refused
        return await listen(
            self._connection, host, port, compression=None, max_size=self._card.max_bytes,
            origins=[None], close_timeout=1, ping_timeout=None, max_queue=1, backlog=BACKLOG,
            open_timeout=GREETING_S, process_request=access,
            create_connection=functools.partial(Connection, self._limits),  # pyright: ignore
        )  # fmt: skip

    def _url(self, server: Server) -> str:
        """Where it listens; says who can come in by there."""
        addresses = [listening.getsockname() for listening in server.sockets]
        beyond = [a[0] for a in addresses if not ipaddress.ip_address(a[0]).is_loopback]
        if beyond and not self._token:
            logger.warning(
                "%s is no loopback address and there is no token: anyone who reaches it can act; "
                "give --token_file FILE", beyond[0],
            )  # fmt: skip
        host, port = addresses[0][:2]
        return f"ws://[{host}]:{port}" if ":" in host else f"ws://{host}:{port}"

    async def _connection(self, socket: ServerConnection) -> None:
        assert isinstance(socket, Connection)
        with suppress(ConnectionClosed):
            name = await self._greeting(socket)
            if name is None:
                return
            client = socket.client = self._episodes.join(name)
            try:
                await self._send(socket, self._card.to_message())
                await self._read(socket, client)
            except ConnectionClosed as closed:
                if closed.rcvd is None or closed.rcvd.code not in (1000, 1001):
                    self._log.warning("the connection of a client broke: %s", one_line(str(closed)))
            finally:
                self._episodes.leave(client)

    async def _greeting(self, socket: Connection) -> str | None:
        """The name of a connection's client; None for one that is refused."""
        try:
            return _name_of(messages.decode(await asyncio.wait_for(socket.read(), GREETING_S)))
        except asyncio.TimeoutError:
            socket.end()
        except WireError as error:
            await self._send(socket, error_response(None, error.kind, str(error)))
        return None

    async def _read(self, socket: Connection, client: Client) -> None:
        """Read calls, no more at a time than the client has pending."""
        pending = _Pending(MAX_PENDING, 4 * self._card.max_bytes)
        while True:
            data = await socket.read()
            size = await pending.enter(len(data))
            responding = self._respond(socket, client, data)
            task = asyncio.create_task(responding)
            del data, responding  # the task holds them as long as it needs them
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            task.add_done_callback(functools.partial(pending.leave, size))
            await asyncio.sleep(0)  # other connections have their turn

    async def _respond(self, socket: Connection, client: Client, data: object) -> None:
        response = await self._episodes.respond(client, data)
        with suppress(ConnectionClosed):  # a client that comes back asks again
            await self._send(socket, response)

    async def _send(self, socket: Connection, message: dict[str, Any]) -> None:
        if socket.transport.is_closing():
            return
        try:
            await asyncio.wait_for(socket.send(messages.encode(message)), SEND_S)
        except asyncio.TimeoutError:
            self._log.warning("a client does not read its responses: its connection is closed")
            socket.end()

    def _note(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What the event loop has to say; a stranger can make it lack files for new connections."""
        error = context.get("exception")
        if isinstance(error, OSError):
            self._log.warning("%s: %s", context.get("message"), one_line(str(error)))
        else:
            loop.default_exception_handler(context)


class _Pending:
    """The calls of a connection that have no response yet."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._count, self._bytes = 0, 0
        self._left = asyncio.Event()

    async def enter(self, size: int) -> int:
        """Wait until one more call of this many bytes may come in; returns them."""
        while self._count >= self._most or (self._count and self._bytes + size > self._most_bytes):
            self._left.clear()
            await self._left.wait()
        self._count, self._bytes = self._count + 1, self._bytes + size
        return size

    def leave(self, size: int, _: object) -> None:
        """A call has its response."""
        self._count, self._bytes = self._count - 1, self._bytes - size
        self._left.set()


def _name_of(hello: dict[str, Any]) -> str:
    call, version, name = (hello.get(key) for key in ("call", "version", "client"))
    if not messages.is_whole(version) or version != messages.VERSION:
        raise WireError(
            f"this server speaks version {messages.VERSION}, the client {shown(version)}: install "
            "the same release on both sides",
            messages.BAD_VERSION,
        )
    if not messages.is_name(call) or call != "hello" or not messages.is_name(name) or not name:
        raise WireError(
            f"expected a hello with the client's name, at most {messages.LONGEST_NAME} characters"
        )
    return name
