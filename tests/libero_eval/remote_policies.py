"""Policies and links for tests of policy servers; server processes import this module."""

import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from invact_vla.core.schema import ActionChunk, Observation, Policy
from libero_eval.policies import PolicyConfig
from libero_eval.policy_source import EachEpisode, PolicyRequest, PolicySource

OBSERVATION = Observation(
    np.arange(32 * 32 * 3, dtype=np.uint32).astype(np.uint8).reshape(32, 32, 3), None,
    np.linspace(0, 1, 8).astype(np.float32), "open the drawer",
)  # fmt: skip


class Fickle:
    """Acts with its seed and its calls so far; raises and sleeps when the instruction says so."""

    needs: tuple[str, ...] = ("agentview",)
    chunk = 2

    def __init__(self) -> None:
        self.seed, self.calls = 0, 0

    def reset(self, seed: int) -> None:
        self.seed, self.calls = seed, 0

    def act(self, observation: Observation) -> ActionChunk:
        if observation.instruction == "raise":
            raise RuntimeError("lost <the> way")
        if observation.instruction == "sleep":
            time.sleep(1.0)
        self.calls += 1
        values = np.full((self.chunk, 7), self.seed / 100, np.float32)
        values[:, 1] = self.calls / 100
        return ActionChunk(values)


class Steady(Fickle):
    """Acts the same for as long as one likes."""

    def act(self, observation: Observation) -> ActionChunk:
        return ActionChunk(np.zeros((self.chunk, 7), np.float32))


@PolicyConfig.register_subclass("fickle")
@dataclass(frozen=True, kw_only=True)
class FickleConfig(PolicyConfig):
    def load(self) -> PolicySource:
        return EachEpisode(Fickle)


class Counting(PolicySource):
    """Acts with the size of the batch, in tenths."""

    batched = True

    def open(self, sim: object) -> Policy:
        return Fickle()

    def act(self, requests: Sequence[PolicyRequest]) -> list[ActionChunk]:
        if any(o.instruction == "raise" for _, o in requests):
            raise RuntimeError("lost <the> way")
        values = np.full((1, 7), len(requests) / 10, np.float32)
        return [ActionChunk(values) for _ in requests]


@PolicyConfig.register_subclass("counting")
@dataclass(frozen=True, kw_only=True)
class CountingConfig(PolicyConfig):
    def load(self) -> PolicySource:
        return Counting()


class Wire:
    """Passes bytes on between a client and a server until it is cut; then it can be mended."""

    def __init__(self, port: int) -> None:
        self.target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self.passed = 0  # connections so far
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Break all connections; new ones are taken."""
        ends, self._open = self._open, []  # those that come meanwhile stay
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                ours, _ = self._listener.accept()
                theirs = socket.create_connection(("127.0.0.1", self.target))
                self._open += [ours, theirs]
                self.passed += 1
                for source, sink in ((ours, theirs), (theirs, ours)):
                    threading.Thread(target=_pump, args=(source, sink), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)
