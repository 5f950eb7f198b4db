"""No client of a policy server takes more than its share of memory, places, log or time."""

import gc
import os
import re
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.sync.client import ClientConnection, connect

from invact_vla.core.errors import UserError
from libero_eval.policies import RemoteConfig
from libero_eval.policy_source import EachEpisode
from libero_eval.serving import episodes, listener, messages
from libero_eval.serving.batcher import FairQueue
from libero_eval.serving.messages import WireError
from libero_eval.serving.server import serve
from tests.libero_eval.remote_policies import OBSERVATION, Fickle, Steady
from tests.libero_eval.remote_raw import SEEN, act, ask, greeted, reset, serving

FICKLE = EachEpisode(Fickle)


def packed(value: object) -> bytes:
    data: Any = msgpack.packb(value)
    return data


def array(dtype: object, shape: object, raw: object) -> msgpack.ExtType:
    return msgpack.ExtType(messages.ARRAY, packed((dtype, shape, raw)))


def peak_mb() -> float:
    """Most memory that this process had since the last call."""
    text = Path("/proc/self/status").read_text()
    Path("/proc/self/clear_refs").write_text("5")
    return int(re.findall(r"VmHWM:\s+(\d+)", text)[0]) / 1024


def nested(depth: int, inner: bytes = b"\x90") -> bytes:
    return b"\x81\xa1a" + b"\x91" * depth + inner


MB = 1 << 20
BOMBS = {
    "maps": b"\x81\xa1a\xdd" + (16 * MB).to_bytes(4, "big") + b"\x80" * (16 * MB - 16),
    "lists": b"\x81\xa1a\xdd" + (16 * MB).to_bytes(4, "big") + b"\x90" * (16 * MB - 16),
    "lists of lists": b"\x81\xa1a" + (b"\xdc\x00\xff" + b"\x90" * 255) * 60_000,
    "a map of many": b"\xdf" + (4 * MB).to_bytes(4, "big") + b"\xa1a\xc0" * (4 * MB),
    "a length alone": b"\x81\xa1a\xdd\xff\xff\xff\xff",
    "a map's length alone": b"\xdf\xff\xff\xff\xff",
    "lengths in lengths": b"\xdc\x01\x00" * (5 * MB),
    "deep": nested(8 * MB),
    "deep maps": b"\x81\xa1a" * (5 * MB),
    "arrays": packed({str(i): [array("|u1", [0], b"")] * 255 for i in range(200)}),
    "a long shape": packed({"a": array("|u1", [1] * 65_000, b"x")}),
    "maps in an array": packed({"a": msgpack.ExtType(1, b"\xdd\x00\xff\xff\xff" + b"\x80" * MB)}),
    "times": b"\x81\xa1a\xdd\x00\xff\xff\xff" + packed(msgpack.Timestamp(1)) * MB,
    "text that is none": b"\x81\xa1a\xdb" + (15 * MB).to_bytes(4, "big") + b"\xff" * (15 * MB),
    "a key": packed({"k" * (15 * MB): 1}),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_for_little(name: str) -> None:
    peak_mb()
    before, started = peak_mb(), time.process_time()
    try:
        messages.decode(BOMBS[name])
        assert name == "a key", "long but harmless"
    except WireError as error:
        assert len(str(error)) < 400
    assert time.process_time() - started < 1.0
    assert peak_mb() - before < 100


@pytest.mark.parametrize(
    "parts",
    [
        (["|u1"], [1], b"x"), ("|u1", "1", b"x"), ("|u1", b"\x01", b"x"), ("|u1", [1], "x"),
        ("|u1", [True], b"x"), ("|u1", [2**64 - 1], b"x"), ("|u1", [2**63, 0], b""),
        ("|u1", [[1]], b"x"), ("|u1", None, b"x"), ("|u1", [-1], b"x"), ("|u1", [1.0], b"x"),
        ("<f4", [1], b"xyz"), ("|O", [1], b"x" * 8), (None, [1], b"x"), ("<M8[s]", [1], b"x" * 8),
        ("|u1", [1]), (), "text", 1, None, {"a": 1}, ("|u1", [1] * 9, b"x"), ("|V1", [1], b"x"),
        ("|u1,|O", [1], b"x"), ("|u1", [2**62, 2**62], b""), ("|u1", [0, 2**62, 2**62], b""),
    ],
)  # fmt: skip
def test_arrays_that_are_none(parts: object) -> None:
    data = packed({"a": msgpack.ExtType(messages.ARRAY, packed(parts))})
    with pytest.raises(WireError) as caught:
        messages.decode(data)
    assert len(str(caught.value)) < 400


# -- malformed calls

ODD = [
    None, True, 1.5, -1, 2**63, 2**64 - 1, "x", "x" * 100_000, b"x" * 100_000, [], {}, [[]], {"a": []},
    msgpack.Timestamp(1, 1), array("<f4", [2], b"x" * 8), msgpack.ExtType(9, b"x" * 9), float("nan"),
    "\x1b[2J\n\r\0", array("|u1", [10, 100_000], b"x" * 1_000_000),
]  # fmt: skip


def odd_calls() -> Iterator[object]:
    yield from (packed(v) for v in ODD)
    yield from ("text", "", b"", b"\xc1")
    for odd in ODD:
        seen = {k: v for k, v in SEEN.items() if not isinstance(v, np.ndarray)}
        for call in ("act", "reset", "release", "hello"):
            whole = {"call": call, "id": 1, "episode": 0, "seed": 1, "observation": seen}
            for key in whole:
                yield packed({**whole, key: odd})
                yield packed({k: v for k, v in whole.items() if k != key})
        for key in SEEN:
            yield packed({"call": "act", "id": 2, "episode": 0, "observation": {**seen, key: odd}})


def test_every_odd_call_is_answered() -> None:
    with serving(FICKLE) as url, greeted(url) as raw:
        for number, data in enumerate(odd_calls()):
            response = ask(raw, data, 5)
            assert {"id"} <= set(response) <= {"id", "error", "actions"}, data
            assert len(str(response)) < 1000
            fresh = 10_000 + number
            assert ask(raw, reset(fresh, episode=77)) == {"id": fresh}
        assert "actions" in ask(raw, act(99_999, episode=77))


@pytest.mark.parametrize("change", [{k: v} for k in ("call", "version", "client") for v in ODD])
def test_an_odd_greeting_is_answered(change: dict[str, Any], shared: str) -> None:
    hello = {"call": "hello", "version": messages.VERSION, "client": "x", **change}
    with connect(shared, max_size=None) as raw:
        try:
            response = ask(raw, packed(hello))
        except ConnectionClosed:  # more bytes than a stranger may send
            assert len(packed(hello)) > 900_000
            return
        assert "error" in response or change == {"client": "x"}, response
        assert len(str(response)) < 1000


@pytest.fixture(scope="module")
def shared() -> Iterator[str]:
    with serving(FICKLE) as url:
        yield url


@pytest.mark.parametrize("number", [-1, 0, 2**63])
def test_any_whole_number_is_an_id(number: int, shared: str) -> None:
    with greeted(shared, f"id {number}") as raw:
        assert ask(raw, act(number))["error"]["kind"] == "episode"
        assert ask(raw, reset(number)) == {"id": number}
        assert ask(raw, reset(number)) == {"id": number}, "sent again: done once"


def test_an_observation_without_pixels_is_refused(shared: str) -> None:
    with greeted(shared, "empty") as raw:
        ask(raw, reset(1))
        for shape in ((0, 8, 3), (8, 0, 3), (0, 0, 3)):
            seen = {**SEEN, "agentview": np.zeros(shape, np.uint8)}
            call = {"call": "act", "id": 2, "episode": 0, "observation": seen}
            assert ask(raw, call)["error"]["kind"] == "request"
        long = act(3, instruction="x" * 5000)
        assert "4096 characters" in ask(raw, long)["error"]["message"]


# -- places


def test_names_are_short_and_forgotten(shared: str) -> None:
    with connect(shared, max_size=None) as raw:
        hello = {"call": "hello", "version": messages.VERSION, "client": "x" * 1000}
        assert "at most 128" in ask(raw, hello)["error"]["message"]
    held = held_clients()
    for n in range(50):
        with greeted(shared, f"passing {n}"):
            pass
    wait_until(lambda: held_clients() <= held + 1)


def held_clients() -> int:
    gc.collect()
    return sum(type(thing) is episodes.Client for thing in gc.get_objects())


def wait_until(is_so: Callable[[], bool], timeout_s: float = 8.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_episodes_of_clients_that_are_gone_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(episodes, "MAX_AWAY", 10)
    released = []
    source = EachEpisode(Fickle)
    monkeypatch.setattr(source, "release", released.append)
    with serving(source) as url:
        for client in range(5):
            with greeted(url, f"leaver {client}") as raw:
                for number in range(4):
                    ask(raw, reset(number, episode=number))
        wait_until(lambda: len(released) == 1 + 12)  # the card's, and the three that left first
        with greeted(url, "leaver 4") as raw:
            assert "actions" in ask(raw, act(9, episode=3)), "the last one's still wait for it"


def test_no_more_episodes_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many are asked for at once."""
    monkeypatch.setattr(episodes, "MAX_EPISODES", 50)
    opened = []

    def make() -> Fickle:
        opened.append(1)
        return Fickle()

    with serving(EachEpisode(make)) as url, greeted(url) as raw:
        for n in range(300):
            raw.send(messages.encode(reset(n, episode=n)))
        responses = [messages.decode(raw.recv(10)) for _ in range(300)]
        assert sum("error" not in a for a in responses) == 50 and len(opened) == 51
        ask(raw, {"call": "release", "id": 1000, "episode": 0})
        assert ask(raw, reset(1001, episode=1000)) == {"id": 1001}


@pytest.mark.parametrize("stage", ["nothing", "half a request", "no greeting"])
def test_idle_connections_are_closed(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "GREETING_S", 0.5)
    with serving(FICKLE) as url, ExitStack() as opened:
        port = int(url.rsplit(":", 1)[1])
        if stage == "no greeting":
            idle = opened.enter_context(connect(url))
            with pytest.raises(ConnectionClosed):
                idle.recv(5)
            return
        idle = opened.enter_context(socket.create_connection(("127.0.0.1", port)))
        idle.settimeout(5)
        if stage == "half a request":
            idle.send(b"GET / HTTP/1.1\r\nHost: x\r\n")
        assert idle.recv(100) == b""


@pytest.mark.parametrize("stage", ["nothing", "no greeting", "greeted"])
def test_idle_connections_lock_nobody_out(
    stage: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listener, "MAX_CONNECTIONS", 20)
    with serving(FICKLE) as url, ExitStack() as opened:
        port = int(url.rsplit(":", 1)[1])
        with greeted(url, "honest") as honest:
            ask(honest, reset(1))
            for n in range(128):
                if stage == "nothing":
                    opened.enter_context(socket.create_connection(("127.0.0.1", port)))
                elif stage == "no greeting":
                    opened.enter_context(connect(url, close_timeout=0.1))
                else:
                    opened.enter_context(greeted(url, f"idle {n}", close_timeout=0.1))
            assert "actions" in ask(honest, act(2)), "one that works keeps its place"
            with greeted(url, "late") as late:
                assert ask(late, reset(1)) == {"id": 1}
    assert len([r for r in caplog.records if "connections are open" in r.message]) == 1
    assert len(caplog.records) < 10


def test_connections_that_all_work_keep_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "MAX_CONNECTIONS", 5)
    with serving(FICKLE) as url, ExitStack() as opened:
        raws = [opened.enter_context(greeted(url, str(n))) for n in range(5)]
        for raw in raws:
            ask(raw, reset(1))
        with pytest.raises((OSError, EOFError, Exception)), greeted(url, "one too many"):
            pass
        for raw in raws:
            assert "actions" in ask(raw, act(2))
        raws.pop().close()
        wait_until(lambda: can_come_in(url))


def can_come_in(url: str) -> bool:
    try:
        with greeted(url, "the next"):
            return True
    except Exception:  # noqa: BLE001 - any refusal
        return False


@pytest.mark.slow
def test_a_server_short_of_files_says_so_once() -> None:
    """Connections beyond what the process may open: few lines, and served again later."""
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64));"
        "from tests.libero_eval.remote_policies import Fickle;"
        "from libero_eval.policy_source import EachEpisode;"
        "from libero_eval.serving.server import serve;"
        "serve(EachEpisode(Fickle), name='x', port=0, ready=lambda u: print(u, flush=True))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as server:  # fmt: skip
        assert server.stdout is not None and server.stderr is not None
        url = server.stdout.readline().strip()
        port = int(url.rsplit(":", 1)[1])
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]
        time.sleep(0.5)
        with greeted(url) as raw:
            assert ask(raw, reset(1)) == {"id": 1}
        for each in idle:
            each.close()
        server.terminate()
        assert server.wait(10) == 0
        assert len(server.stderr.read().splitlines()) < 10


# -- unread responses, and floods


def memory_mb(process: int) -> float:
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MB


@contextmanager
def own_process(code: str = "") -> Iterator[tuple[str, int]]:
    """A server in a process of its own; gives its URL and the process's number."""
    code += (
        ";from tests.libero_eval.remote_policies import Steady;"
        "from libero_eval.policy_source import EachEpisode;"
        "from libero_eval.serving.server import serve;"
        "serve(EachEpisode(Steady), name='x', port=0, ready=lambda u: print(u, flush=True))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code.lstrip(";")], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip(), server.pid
        finally:
            server.terminate()
            assert server.wait(10) == 0


def flood_unread(raw: ClientConnection, data: bytes, seconds: float) -> None:
    """Send and never read, from under the library, which would read along."""
    deadline, done = time.monotonic() + seconds, 0
    while time.monotonic() < deadline:
        if not select.select([], [raw.socket], [], 0.2)[1]:
            continue  # it reads no further for now
        try:  # a timeout on the socket would be the library's too, which would then hang up
            sent = raw.socket.send(memoryview(data)[done:], socket.MSG_DONTWAIT)
            done = (done + sent) % len(data)
        except BlockingIOError:
            continue
        except OSError:
            return


def frame(data: bytes, opcode: Opcode = Opcode.BINARY, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=True)


FLOODS = {
    "calls": frame(messages.encode(act(1))) * 20,
    "nonsense": frame(b"\xc1") * 5000,
    "large nonsense": frame(b"\xc1" * (16 * MB - 1)),
    "bombs": frame(BOMBS["maps"][: 16 * MB - 16]),
    "pings": frame(b"x" * 125, Opcode.PING) * 2000,
    "empty pieces": frame(b"x", fin=False) + frame(b"", Opcode.CONT, fin=False) * 20_000,
    "no frames": b"\xff" * MB,
}


@pytest.mark.slow
@pytest.mark.stress
@pytest.mark.parametrize("name", FLOODS)
def test_a_client_that_floods_and_never_reads(name: str) -> None:
    with own_process() as (url, process), greeted(url, "honest") as honest:
        ask(honest, reset(1))
        ask(honest, act(2))
        before, peak = memory_mb(process), 0.0
        with ExitStack() as stack:
            flooding = []
            for n in range(4):
                raw = stack.enter_context(greeted(url, f"flood {n}", close_timeout=0.1))
                raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                thread = threading.Thread(target=flood_unread, args=(raw, FLOODS[name], 4.0))
                thread.start()
                flooding.append(thread)
            waits, number = [], 3
            while any(thread.is_alive() for thread in flooding):
                started = time.perf_counter()
                assert "actions" in ask(honest, act(number))
                waits.append(time.perf_counter() - started)
                peak, number = max(peak, memory_mb(process)), number + 1
                time.sleep(0.02)
        print(
            f"{name}: {peak - before:.0f} MB, median {np.median(waits):.3f} s, {max(waits):.3f} s"
        )
        assert peak - before < 400
        assert max(waits) < 5.0
        assert len(waits) < 10 or np.median(waits) < 1.0, "floods that were soon cut off: no median"
        assert "actions" in ask(honest, act(number + 1))


@pytest.mark.slow
def test_a_client_that_never_reads_is_closed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listener, "SEND_S", 0.5)

    class Long(Steady):
        chunk = 200  # all that may be pending is less than MAX_UNSENT, which ends it without a word

    with (
        serving(EachEpisode(Long)) as url,
        greeted(url, "deaf", close_timeout=0.1) as raw,
    ):
        ask(raw, reset(0))
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        again = frame(
            messages.encode(act(1))
        )  # which has its response again, however fast it comes
        flood_unread(raw, again * 100, 3.0)
        wait_until(lambda: "does not read its responses" in caplog.text)


def test_clients_take_turns() -> None:
    turns: FairQueue[str] = FairQueue()
    for n in range(100):
        turns.put("greedy", f"g{n}")
    turns.put("modest", "m0")
    turns.put("other", "o0")
    turns.put("modest", "m1")
    assert [turns.take() for _ in range(7)] == ["g0", "m0", "o0", "g1", "m1", "g2", "g3"]
    assert len(turns) == 96


def test_a_client_with_many_calls_does_not_keep_others_waiting() -> None:
    class Slow(Fickle):
        def reset(self, seed: int) -> None:
            time.sleep(0.02)

    with (
        serving(EachEpisode(Slow)) as url,
        greeted(url, "g") as greedy,
        greeted(url, "m") as modest,
    ):
        for n in range(150):
            greedy.send(messages.encode(reset(n, episode=n)))
        time.sleep(0.2)
        started = time.monotonic()
        ask(modest, reset(1))
        assert "actions" in ask(modest, act(2))
        assert time.monotonic() - started < 0.5, "not the three seconds of all others"


# -- who may come in


def test_a_token_is_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    token = "p@ss:w/rd? 1"
    with serving(FICKLE, token=token) as url:
        with pytest.raises(InvalidStatus, match="401"):
            connect(url)
        with pytest.raises(UserError, match="wants another token") as caught:
            RemoteConfig(url=url.replace("//", "//user:wrong@")).load()
        assert "wrong" not in str(caught.value)
        good = url.replace("//", "//anybody:p%40ss%3Aw%2Frd%3F%201@")
        source = RemoteConfig(url=good).load()
        policy = source.open(None)
        policy.reset(1)
        assert policy.act(OBSERVATION).values.shape == (2, 7)
        source.close()
    assert "p%40" not in caplog.text and token not in caplog.text


def test_the_token_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(FICKLE, token="0123456789abcdef") as url:
        monkeypatch.setenv("INVACT_POLICY_TOKEN", "0123456789abcdef")
        RemoteConfig(url=url).load().close()
        monkeypatch.setenv("INVACT_POLICY_TOKEN", "0123456789abcdee")
        with pytest.raises(UserError, match="wants another token"):
            RemoteConfig(url=url).load()


def test_beyond_loopback_a_token_is_missed(caplog: pytest.LogCaptureFixture) -> None:
    for host, is_missed in (("0.0.0.0", True), ("127.0.0.1", False), ("127.0.0.2", False)):
        caplog.clear()
        with serving(FICKLE, host=host):
            assert ("anyone who reaches it can act" in caplog.text) == is_missed
    caplog.clear()
    with serving(FICKLE, host="0.0.0.0", token="0123456789abcdef"):
        assert not caplog.text


def test_tokens_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from libero_eval.serving.address import server_token

    monkeypatch.delenv("INVACT_POLICY_TOKEN", raising=False)
    assert server_token(None) is None
    path = tmp_path / "token"
    for content in (b"", b"short", b"two\nlines of text", b"\xff" * 20, b"\0" * 20):
        path.write_bytes(content)
        with pytest.raises(UserError, match="token"):
            server_token(path)
    with pytest.raises(UserError, match="no token in"):
        server_token(tmp_path)
    path.write_text("0123456789abcdef\n")
    assert server_token(path) == "0123456789abcdef"
    monkeypatch.setenv("INVACT_POLICY_TOKEN", "")
    with pytest.raises(UserError, match="INVACT_POLICY_TOKEN holds no token"):
        server_token(None)


def test_a_policy_that_cannot_be_declared() -> None:
    with pytest.raises(UserError, match="cannot be served"):
        serve(EachEpisode(Fickle), name="two\nlines", port=0, stop_on=())
