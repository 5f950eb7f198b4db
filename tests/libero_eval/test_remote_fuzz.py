"""Ten thousand mutated messages: each is a message or a WireError, and each call has a response."""

import random
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from invact_vla.core.errors import UserError
from invact_vla.core.schema import ActionChunk, Observation
from libero_eval.policy_source import EachEpisode
from libero_eval.serving import messages
from libero_eval.serving.messages import PolicyCard, WireError
from libero_eval.serving.responses import ResponseReader
from tests.libero_eval.remote_policies import Steady
from tests.libero_eval.remote_raw import act, ask, greeted, reset, serving

pytestmark = [pytest.mark.slow, pytest.mark.stress]

CASES = 10_000
SEEDS = [
    messages.encode(message)
    for message in (
        {"call": "hello", "version": 1, "client": "x"}, act(1), reset(2),
        {"call": "release", "id": 3, "episode": 0}, {"id": 1, "actions": np.zeros((2, 7), np.float32)},
        {"id": 1, "error": {"kind": "policy", "message": "it failed"}},
        PolicyCard(name="x", needs=("agentview",), chunk=2).to_message(),
    )
]  # fmt: skip
# the first bytes of everything that msgpack knows, lengths at their ends, and names of dtypes
TOKENS = [bytes([n]) for n in (*range(0x80, 0xA0, 5), *range(0xC0, 0xE0), 0xFF, 0x7F, 0)]
TOKENS += [
    b"\xff" * 4,
    b"\x00" * 4,
    b"\x7f\xff\xff\xff",
    b"\xc7\x05\x01",
    b"|O8",
    b"<f4",
    b"|u1",
    b"\xd9",
]


def mutated(count: int, seed: int) -> Iterator[bytes]:
    choose = random.Random(seed)
    for _ in range(count):
        data = bytearray(choose.choice(SEEDS))
        for _ in range(choose.choice((1, 1, 2, 5, 30))):
            at = int(
                len(data) * choose.random() ** choose.choice((1, 4))
            )  # headers more than pixels
            match choose.randrange(6):
                case 0 if at < len(data):
                    data[at] ^= 1 << choose.randrange(8)
                case 1:
                    token = choose.choice(TOKENS)
                    data[at : at + len(token)] = token
                case 2:
                    data[at:at] = choose.choice(TOKENS) * choose.choice((1, 3, 300))
                case 3:
                    del data[at : at + choose.choice((1, 2, 50))]
                case 4:
                    other = choose.choice(SEEDS)
                    data[at:at] = other[: choose.randrange(len(other))]
                case _:
                    data[at:] = data[at : at + 100] * choose.choice((0, 1, 2))
        yield bytes(data)


def readers(message: dict[str, Any]) -> None:
    """All that looks into messages, on either side."""
    for read in (
        lambda: messages.observation_of(message.get("observation"), ("agentview",)),
        lambda: PolicyCard.from_message(message),
    ):
        try:
            assert isinstance(read(), Observation | PolicyCard)
        except WireError as error:
            assert len(str(error)) < 1500
    response = ResponseReader("ws://x", 2).chunk(message)
    assert isinstance(response, ActionChunk | UserError) and len(str(response)) < 1500


def test_mutated_messages_are_messages_or_refused() -> None:
    decoded, slowest = 0, 0.0
    tracemalloc.start()
    for data in mutated(CASES, 0):
        started = time.process_time()
        try:
            message = messages.decode(data)
        except WireError as error:
            assert len(str(error)) < 1500
        else:
            decoded += 1
            readers(message)
        slowest = max(slowest, time.process_time() - started)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"{decoded} of {CASES} decoded, slowest {slowest:.3f} s, peak {peak / 1e6:.1f} MB")
    assert CASES / 20 < decoded < CASES, "neither all broken nor all whole"
    assert slowest < 0.5 and peak < 50e6


def test_mutated_calls_are_answered() -> None:
    """By a server that goes on serving another client."""
    with serving(EachEpisode(Steady)) as url, greeted(url, "a") as raw, greeted(url, "b") as honest:
        ask(honest, reset(0))
        for number, data in enumerate(mutated(CASES, 1)):
            response = ask(raw, data)
            assert {"id"} <= set(response) <= {"id", "error", "actions"}, data
            if number % 100 == 0:
                assert "actions" in ask(honest, act(1 + number))
