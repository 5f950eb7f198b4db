"""A hundred clients at once, a tenth of them hostile: the others do not notice."""

import asyncio
import random
import statistics
import time
from collections.abc import Awaitable

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from libero_eval.serving import messages
from tests.libero_eval.remote_raw import act, reset
from tests.libero_eval.test_remote_limits import BOMBS, memory_mb, own_process

pytestmark = [pytest.mark.slow, pytest.mark.stress]

CLIENTS, HOSTILE, CALLS = 100, 10, 10_000
PAUSE_S = 0.4  # of a client between two calls; all of them share a core with the server here
ROUNDS = 4
RATE = 0.05  # how often a hostile client opens many episodes at once
NONSENSE = [b"\xc1" * 100_000, b"", messages.encode({"id": 1}), messages.encode(act(1, 999))]
NONSENSE += [BOMBS[name] for name in ("lengths in lengths", "a length alone", "deep")]
NONSENSE = [data[: 1 << 18] for data in NONSENSE]


async def open_(url: str, name: str) -> ClientConnection:
    raw = await connect(url, compression=None, max_size=None, close_timeout=0.2, ping_interval=None)
    await raw.send(messages.encode({"call": "hello", "version": messages.VERSION, "client": name}))
    await raw.recv()
    return raw


async def honest(url: str, number: int, calls: int, waits: list[float]) -> None:
    """Act, and note how long each response took."""
    raw = await open_(url, f"honest {number}")
    await raw.send(messages.encode(reset(0)))
    await raw.recv()
    for n in range(1, calls + 1):
        await asyncio.sleep(PAUSE_S * random.Random(number * 1000 + n).uniform(0.5, 1.5))
        data = messages.encode(act(n))
        started = time.perf_counter()
        await raw.send(data)
        response = messages.decode(await raw.recv())
        waits.append(time.perf_counter() - started)
        assert response["id"] == n and "actions" in response
    await raw.close()


async def hostile(url: str, number: int, count: list[int], stop: asyncio.Event) -> None:
    """Nonsense, bombs, many episodes at once, unread responses, sudden ends, idle places."""
    choose = random.Random(number)
    while not stop.is_set():
        try:
            raw = await open_(url, f"hostile {number} {choose.random()}")
            for _ in range(choose.randrange(40)):
                calls = [choose.choice(NONSENSE)]
                if choose.random() < RATE:
                    calls = [messages.encode(reset(n, episode=n)) for n in range(20)]
                for data in calls:
                    await asyncio.wait_for(raw.send(data), 1)
                    count[0] += 1
                if choose.random() < 0.5:
                    await asyncio.wait_for(raw.recv(), 1)
                await asyncio.sleep(PAUSE_S * choose.uniform(0.5, 1.5))
            raw.transport.abort()
        except (OSError, asyncio.TimeoutError, WebSocketException):
            await asyncio.sleep(0.05)


async def soak(url: str, calls: int, with_hostile: bool) -> tuple[list[float], int]:
    """Seconds of each honest response, and the number of hostile messages."""
    waits: list[float] = []
    count, stop = [0], asyncio.Event()
    bad = [asyncio.create_task(hostile(url, n, count, stop)) for n in range(HOSTILE * with_hostile)]
    good: list[Awaitable[None]] = [
        honest(url, n, calls // (CLIENTS - HOSTILE), waits) for n in range(CLIENTS - HOSTILE)
    ]
    await asyncio.gather(*good)
    assert not any(task.done() for task in bad), "they were hostile to the end"
    stop.set()
    await asyncio.gather(*bad)
    return waits, count[0]


def test_hostile_clients_are_not_noticed() -> None:
    """Quiet and loud rounds in turn, so that what else this machine does meets both alike."""
    quiet, loud, memory, total = [], [], [], 0
    with own_process() as (url, process):
        for _ in range(ROUNDS):
            quiet += asyncio.run(soak(url, CALLS // ROUNDS, False))[0]
            waits, count = asyncio.run(soak(url, CALLS // ROUNDS, True))
            loud, total = loud + waits, total + count
            memory.append(memory_mb(process))
    medians = statistics.median(quiet), statistics.median(loud)
    print(
        f"median {medians[0] * 1e3:.1f} ms quiet, {medians[1] * 1e3:.1f} ms beside {total} hostile "
        f"messages; memory after each round {[round(m) for m in memory]} MB"
    )
    assert len(loud) >= CALLS * 0.95 and total > 1000
    assert medians[1] < 2 * medians[0]
    assert memory[-1] < 300 and memory[-1] - memory[0] < 20
