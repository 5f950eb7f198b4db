"""How many connections a server has, and what each may send and leave unread."""

import asyncio
import logging
import resource
import time
from typing import Any

from websockets.asyncio.server import ServerConnection

from libero_eval.serving.episodes import Client
from libero_eval.serving.text import RateLimitedLog

logger = logging.getLogger(__name__)

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
        idle = [
            c for c in self._inside if not c.has_episodes() or now - c.last_message > self._keep_s
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

    def has_episodes(self) -> bool:
        """Whether its client has open ones."""
        return self.client is not None and bool(self.client.episodes)

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
