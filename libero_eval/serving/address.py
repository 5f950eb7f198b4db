"""The address of a policy server, the secret that opens it, and waiting until it listens."""

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

from invact_vla.core.errors import UserError

logger = logging.getLogger(__name__)

SAY_EVERY_S = 10.0
RETRY_EVERY_S = 0.5
TOKEN_VARIABLE = "INVACT_POLICY_TOKEN"
SHORTEST_TOKEN = 8  # characters
PORTS = {"ws": 80, "wss": 443}


class ServerUrl(str):
    """The URL of a server without the password in it, so that it can be shown, stored and compared.

    full: the same with it, to connect with.
    """

    full: str

    def __new__(cls, url: str) -> "ServerUrl":
        """url: ws://HOST:PORT, ws://USER:PASSWORD@HOST:PORT, or another ServerUrl."""
        full = url.full if isinstance(url, ServerUrl) else str(url)
        head, _, location = full.rpartition("@")
        scheme, slashes, _ = head.partition("//")
        shown = super().__new__(cls, f"{scheme}{slashes}{location}" if slashes else location)
        shown.full = full
        return shown

    def __getnewargs__(self) -> tuple[str]:
        """For pickles, which go to workers."""
        return (self.full,)

    def with_token(self) -> "ServerUrl":
        """With the token of this process's environment, if there is one and the URL has none."""
        token = os.environ.get(TOKEN_VARIABLE)
        if not token or self.full != str(self):
            return self
        scheme, _, rest = self.full.partition("://")
        return ServerUrl(f"{scheme}://invact:{quote(token, safe='')}@{rest}")

    def host_and_port(self) -> tuple[str, int]:
        """Where to connect to. Raises UserError for a URL that names no host."""
        try:
            parts = urlsplit(self.full)
            port = parts.port or PORTS[parts.scheme]
        except (ValueError, KeyError) as error:
            raise UserError(
                f"{self!s:.200} is no address of a policy server: ws://HOST:PORT"
            ) from error
        if not parts.hostname:
            raise UserError(f"{self!s:.200} names no host: expected ws://HOST:PORT")
        return parts.hostname, port


def server_token(path: Path | None) -> str | None:
    """What clients of a server must know: a file's text, else a variable's; None without either.

    Raises UserError for a file that cannot be read, and for a token that could be guessed.
    """
    if path is None:
        token, where = os.environ.get(TOKEN_VARIABLE), f"the variable {TOKEN_VARIABLE}"
        if token is None:
            return None
    else:
        try:
            token, where = path.read_text().strip(), str(path)
        except (OSError, ValueError) as error:
            raise UserError(f"no token in {path}: expected a file with one line of text") from error
    if len(token) < SHORTEST_TOKEN or not token.isprintable():
        raise UserError(
            f"{where} holds no token: expected one line of at least {SHORTEST_TOKEN} characters; "
            "make one by `openssl rand -hex 16`"
        )
    return token


def dial(url: ServerUrl, timeout_s: float, wait_s: float) -> socket.socket:
    """A connection to the server's port. wait_s: how long somebody who does not listen is waited for.

    Raises UserError if nobody listens by then, and for a URL that names no host.
    """
    address = url.host_and_port()
    deadline = time.monotonic() + wait_s
    with waiting(url, "somebody to listen", wait_s):
        while True:
            try:
                return socket.create_connection(address, timeout_s)
            except OSError as error:
                if time.monotonic() < deadline and isinstance(error, ConnectionError):
                    time.sleep(RETRY_EVERY_S)
                    continue
                raise UserError(
                    f"no policy server at {url} ({str(error) or type(error).__name__}): start one "
                    "with `invact libero serve`, correct --policy.url, or give --policy.wait_s 300 "
                    "if it is about to start"
                ) from error


@contextmanager
def waiting(url: str, what: str, limit_s: float) -> Iterator[None]:
    """Say every SAY_EVERY_S seconds that something has not come yet, as long as the block lasts."""
    started, is_over = time.monotonic(), threading.Event()

    def say() -> None:
        while not is_over.wait(SAY_EVERY_S):
            seconds = time.monotonic() - started
            logger.warning(
                "%s: waiting for %s, %.0f s of at most %g s", url, what, seconds, limit_s
            )

    thread = threading.Thread(target=say, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
