"""Policy servers in a thread of the test, and clients that send whatever they like."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from websockets.sync.client import ClientConnection, connect

from libero_eval.policy_source import PolicySource
from libero_eval.serving import messages
from libero_eval.serving.server import serve
from tests.libero_eval.remote_policies import OBSERVATION

SEEN = messages.observation_to_message(OBSERVATION)


@contextmanager
def serving(source: PolicySource, **options: Any) -> Iterator[str]:
    """A server that ends with the block; gives its URL."""
    is_ready, started = threading.Event(), {}

    def ready(url: str) -> None:
        started.update(url=url, loop=asyncio.get_running_loop(), task=asyncio.current_task())
        is_ready.set()

    def run() -> None:
        try:
            serve(source, name="raw", port=0, ready=ready, stop_on=(), **options)
        except asyncio.CancelledError:
            pass
        finally:
            is_ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    assert is_ready.wait(10) and "url" in started
    try:
        yield started["url"]
    finally:
        if thread.is_alive():
            started["loop"].call_soon_threadsafe(started["task"].cancel)
        thread.join(15)
        assert not thread.is_alive()


@contextmanager
def greeted(url: str, name: str = "raw", **options: Any) -> Iterator[ClientConnection]:
    """A connection whose greeting was responded to."""
    with connect(url, max_size=None, compression=None, **options) as raw:
        hello = {"call": "hello", "version": messages.VERSION, "client": name}
        assert ask(raw, hello)["chunk"] >= 1
        yield raw


def ask(raw: ClientConnection, message: Any, timeout_s: float = 10.0) -> dict[str, Any]:
    """The next response after a message, or after bytes as they are."""
    raw.send(message if isinstance(message, bytes | str) else messages.encode(message))
    return messages.decode(raw.recv(timeout_s))


def act(number: int, episode: int = 0, instruction: str = "go") -> dict[str, Any]:
    seen = {**SEEN, "instruction": instruction}
    return {"call": "act", "id": number, "episode": episode, "observation": seen}


def reset(number: int, episode: int = 0, seed: int = 1) -> dict[str, Any]:
    return {"call": "reset", "id": number, "episode": episode, "seed": seed}
