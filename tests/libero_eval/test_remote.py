"""Policies behind a server act as in process; what goes wrong has a name; nothing is executed."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve

from invact_vla.config.command import parse_config
from invact_vla.core import schema
from invact_vla.core.errors import UserError
from invact_vla.core.schema import ActionChunk, Observation
from libero_eval.policies import DemonstratorConfig, PolicyConfig, RemoteConfig, SelftestConfig
from libero_eval.rollout.serve import ServeConfig, local_server, serve_policy
from libero_eval.serving import address, messages
from libero_eval.serving.client import Link, RemoteSource
from libero_eval.serving.messages import PolicyCard, WireError
from libero_eval.serving.responses import GripperRange
from tests.libero_eval.remote_policies import OBSERVATION, CountingConfig, FickleConfig, Wire
from tests.paths import REPOSITORY


@pytest.fixture(scope="module")
def fickle() -> Iterator[str]:
    with local_server(FickleConfig()) as url:
        yield url


@contextmanager
def client(url: str, timeout_s: float = 20.0) -> Iterator[RemoteSource]:
    source = RemoteConfig(url=url, timeout_s=timeout_s).load()
    assert isinstance(source, RemoteSource)
    try:
        yield source
    finally:
        source.close()


def saying(instruction: str) -> Observation:
    return replace(OBSERVATION, instruction=instruction)


# -- bytes


def test_arrays_survive_the_wire() -> None:
    arrays = [np.arange(6, dtype=d).reshape(2, 3) for d in (np.uint8, np.float32, np.float64)]
    arrays += [np.zeros((0, 7), np.float32), np.arange(8, dtype=np.int64)[::2]]
    sent = {"a": arrays, "text": "é", "none": None, "number": 1.5}
    got = messages.decode(messages.encode(sent))
    for one, other in zip(arrays, got.pop("a"), strict=True):
        assert one.dtype == other.dtype and np.array_equal(one, other) and other.flags.writeable
    assert got == {"text": "é", "none": None, "number": 1.5}


@pytest.mark.parametrize("value", [object(), np.array([object()]), np.zeros(2, "c16"), Path("x")])
def test_only_plain_data_is_sent(value: object) -> None:
    with pytest.raises(TypeError):
        messages.encode({"value": value})


def array_bytes(dtype: str, shape: list[int], raw: bytes) -> bytes:
    packed: Any = msgpack.packb((dtype, shape, raw))
    data: Any = msgpack.packb({"a": msgpack.ExtType(messages.ARRAY, packed)})
    return data


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\xc1", b"\x93\x01", "text", msgpack.packb([1]), msgpack.packb({"a": 1}) + b"x",
        msgpack.packb({"a": msgpack.ExtType(9, b"x")}), array_bytes("|O", [1], b"x" * 8),
        array_bytes("<f4", [3], b"x" * 8), array_bytes("<f4", [-1], b"x" * 8),
        array_bytes("<f4", [1 << 40, 1 << 40], b""),
    ],
)  # fmt: skip
def test_what_is_no_message_is_refused(data: object) -> None:
    with pytest.raises(WireError):
        messages.decode(data)


@given(st.binary(max_size=64))
@settings(max_examples=300, deadline=None)
def test_decoding_raises_nothing_else(data: bytes) -> None:
    with suppress(WireError):
        assert isinstance(messages.decode(data), dict)


def test_observations_are_checked() -> None:
    message = messages.observation_to_message(OBSERVATION)
    assert np.array_equal(messages.observation_of(message, ()).agentview, OBSERVATION.agentview)
    for change in (
        {"agentview": None}, {"state": np.zeros(3, np.float32)}, {"instruction": 3}, {"more": 1},
        {"wrist": "x"},
    ):  # fmt: skip
        with pytest.raises(WireError):
            messages.observation_of({**message, **change}, ("agentview",))
    with pytest.raises(WireError, match="wrist"):
        messages.observation_of(message, ("agentview", "wrist"))


def test_the_server_needs_only_numpy_websockets_and_msgpack() -> None:
    code = """
import sys
import libero_eval.serving.server
import libero_eval.policy_source
roots = {n.split(".")[0] for n in sys.modules} - set(sys.stdlib_module_names)
print(*sorted(r for r in roots if not r.startswith("_")))
"""
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *site_packages()])},
    )  # fmt: skip
    allowed = {"cython_runtime", "invact_vla", "libero_eval", "msgpack", "numpy", "websockets"}
    assert set(done.stdout.split()) <= allowed, done.stdout


def site_packages() -> list[str]:
    return [path for path in sys.path if path.endswith("site-packages")]


# -- acting


def test_remote_equals_in_process() -> None:
    config = SelftestConfig(chunk=4)
    here = config.load()
    with local_server(config) as url, client(url) as there:
        assert there.card.name == "selftest" and there.card.hash == config.hash()
        assert RemoteConfig(url=url).hash() == config.hash()
        pairs = [(here.open(None), there.open(None)) for _ in range(3)]
        for seed, pair in enumerate(pairs):
            for policy in pair:
                policy.reset(seed)
        assert pairs[0][1].needs == ("agentview",) and pairs[0][1].chunk == 4
        for call in range(3):
            seen = [saying(f"task {i} {call}") for i in range(3)]
            local = here.act([(p, o) for (p, _), o in zip(pairs, seen, strict=True)])
            remote = there.act([(p, o) for (_, p), o in zip(pairs, seen, strict=True)])
            for one, other in zip(local, remote, strict=True):
                assert np.array_equal(one.values, other.values)
        there.release(pairs[0][1])
        with pytest.raises(UserError, match=r"episode error: episode 0 is unknown"):
            pairs[0][1].act(OBSERVATION)


def test_two_clients_have_episodes_of_their_own(fickle: str) -> None:
    with client(fickle) as one, client(fickle) as two:
        first, second = one.open(None), two.open(None)
        first.reset(10)
        second.reset(20)
        first.act(OBSERVATION)
        assert first.act(OBSERVATION).values[0, :2].tolist() == pytest.approx([0.1, 0.02])
        assert second.act(OBSERVATION).values[0, :2].tolist() == pytest.approx([0.2, 0.01])
        first.reset(30)
        assert first.act(OBSERVATION).values[0, :2].tolist() == pytest.approx([0.3, 0.01])


def test_requests_are_answered_in_batches() -> None:
    with local_server(CountingConfig(), max_batch=3, max_wait_ms=2000) as url, client(url) as one:
        policies = [one.open(None) for _ in range(4)]
        for policy in policies:
            policy.reset(0)
        responses = one.act([(p, OBSERVATION) for p in policies[:3]])
        assert [a.values[0, 0] for a in responses] == pytest.approx([0.3] * 3)
        for policy in policies[1:]:
            one.release(policy)
        started = time.perf_counter()  # one episode runs: nobody to wait for
        assert policies[0].act(OBSERVATION).values[0, 0] == pytest.approx(0.1)
        assert time.perf_counter() - started < 1.5
        with pytest.raises(UserError, match=r"lost <the> way"):
            policies[0].act(saying("raise"))


def test_batches_of_several_clients() -> None:
    sizes = []

    def act(source: RemoteSource) -> None:
        policy = source.open(None)
        policy.reset(0)
        barrier.wait()
        sizes.append(policy.act(OBSERVATION).values[0, 0])

    with (
        local_server(CountingConfig(), max_wait_ms=5000) as url,
        client(url) as one,
        client(url) as two,
    ):
        barrier = threading.Barrier(2)
        threads = [threading.Thread(target=act, args=(s,)) for s in (one, two)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sizes == pytest.approx([0.2, 0.2])


def test_the_example_of_the_docs(tmp_path: Path) -> None:
    """It runs as it stands, but for the port."""
    text = (REPOSITORY / "docs" / "remote_policy.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    script = tmp_path / "light.py"
    script.write_text(code.replace("port=8000", "port=0"))
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment
    ) as server:
        assert server.stdout is not None
        with client(server.stdout.readline().strip()) as source:
            assert (source.card.name, source.card.chunk, source.card.hash) == ("light", 8, "")
            policy = source.open(None)
            policy.reset(0)
            values = policy.act(OBSERVATION).values
        server.terminate()
    expected = 0.5 - OBSERVATION.agentview.mean() / 255
    assert values.shape == (8, 7) and values[0, 2] == np.float32(expected)


# -- what goes wrong


def test_policy_exceptions_are_answers(fickle: str) -> None:
    with client(fickle) as source:
        policy = source.open(None)
        policy.reset(1)
        with pytest.raises(
            UserError,
            match=r"policy error: RuntimeError: lost <the> way \(in act, remote_pol.*:\d+\)",
        ):
            policy.act(saying("raise"))
        assert policy.act(OBSERVATION).values[0, 1] == np.float32(0.01)


def test_a_failure_beside_others_changes_nothing_for_them(fickle: str) -> None:
    with client(fickle) as source:
        policies = [source.open(None) for _ in range(3)]
        for policy in policies:
            policy.reset(1)
        for call in (1, 2):
            texts = ("go", "raise", "go")
            responses = source.act_apart(
                [(p, saying(t)) for p, t in zip(policies, texts, strict=True)]
            )
            assert isinstance(responses[1], UserError)
            for response in (responses[0], responses[2]):
                assert isinstance(response, ActionChunk)
                assert response.values[0, 1] == np.float32(call / 100)


def test_an_answer_that_does_not_come(fickle: str) -> None:
    with client(fickle, timeout_s=0.2) as source:
        policy = source.open(None)
        policy.reset(1)
        policy.act(saying("sleep"))  # the first one may take longer
        with pytest.raises(
            UserError, match=r"no response within 0\.2 s: raise --policy\.timeout_s"
        ):
            policy.act(saying("sleep"))


def test_a_first_response_that_does_not_come(fickle: str) -> None:
    source = RemoteConfig(url=fickle, first_response_s=0.5).load()
    policy = source.open(None)
    with pytest.raises(UserError, match=r"within 0\.5 s: raise --policy\.first_response_s"):
        policy.reset(1)  # the call before may still run
        policy.act(saying("sleep"))
    source.close()


def test_waiting_is_said(
    fickle: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(address, "SAY_EVERY_S", 0.3)
    caplog.set_level("INFO")
    with client(fickle) as source:
        policy = source.open(None)
        policy.reset(1)
        policy.act(saying("sleep"))
        assert "waiting for its first response, 0 s of at most 300 s" in caplog.text
        assert "first action after" in caplog.text
        caplog.clear()
        policy.act(saying("sleep"))
        assert not caplog.text, "once it has acted, slow is no news"


def test_a_server_that_listens_later() -> None:
    port = free_port()
    url = f"ws://127.0.0.1:{port}"
    started = threading.Event()

    def start() -> None:
        time.sleep(1.0)
        with strange_server(lambda _: CARD, port):
            started.wait(20)

    thread = threading.Thread(target=start)
    thread.start()
    try:
        link = Link(url, 5, wait_s=15)
        assert link.card.name == "strange"
        link.close()
    finally:
        started.set()
        thread.join()


def test_a_server_that_greets_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the connection at once, and speaks much later than a connection may take."""

    def response(_: dict[str, Any]) -> dict[str, Any]:
        time.sleep(1.0)
        return CARD

    monkeypatch.setattr("libero_eval.serving.client.CONNECT_S", 0.3)
    with strange_server(response) as url:
        Link(url, 5).close()
        with pytest.raises(
            UserError, match=r"no greeting within 0\.2 s: raise --policy\.first_res"
        ):
            Link(url, 5, first_response_s=0.2)


def test_two_ends_of_a_gripper_are_told_from_libero() -> None:
    def faults(*responses: list[float]) -> list[bool]:
        watch = GripperRange()
        return [watch.fault(np.array(values)) is not None for values in responses]

    assert faults([1.0] * 8, [0.98, 0.02] * 4) == [False, True]
    assert faults([1.0] * 40, [0.0] * 8) == [False, True]
    assert faults([0.0] * 8, [0.0] * 8) == [False, False], "holding still"
    assert faults([1.0] * 80) == [False], "closed all the time"
    assert faults([-1.0], [0.0, 1.0] * 8) == [False, False], "it can open"
    assert faults(list(np.linspace(0.01, 0.9, 16))) == [True], "a sigmoid's"
    assert faults([0.7, 0.8, 0.9] * 9) == [False]
    assert faults([-1.0] * 40, [-1.0, 0.0] * 16, [0.0] * 16) == [False, False, True]
    sure = 1 / (1 + np.exp(-np.linspace(-9, 9, 99)))
    assert faults(list(sure - 1) * 5) == [True], "a sigmoid's less one"
    assert faults(list(np.linspace(-0.98, -0.02, 99)) * 5) == [False], "undecided"
    assert faults([-1.0] * 200 + [-0.05] * 8, [0.0] * 8, [1.0], [0.0] * 99) == [False] * 4
    assert faults([0.9], [-1.0], [0.0] * 99) == [False] * 3, "it can close"


def served(actions: np.ndarray, chunk: int = 8) -> list[ActionChunk]:
    """Three responses of a server that always gives these actions."""
    card = {**CARD, "chunk": chunk}

    def response(asked: dict[str, Any]) -> dict[str, Any]:
        return card if asked["call"] == "hello" else {"actions": actions}

    with strange_server(response) as url, client(url) as source:
        policy = source.open(None)
        policy.reset(0)
        return [policy.act(OBSERVATION) for _ in range(3)]


def test_rounding_is_clipped_and_said(caplog: pytest.LogCaptureFixture) -> None:
    schema._say_rounded.cache_clear()
    for dtype in (np.float32, np.float64):
        responses = served(np.full((8, 7), 1.0000001, dtype))
        assert all((a.values == 1.0).all() and a.values.dtype == np.float32 for a in responses)
    assert caplog.text.count("taken for rounding") == 1
    with pytest.raises(UserError, match=r"wrong action: expected \[-1\.0, 1\.0\]"):
        served(np.full((8, 7), 1.002, np.float32))


def test_no_more_is_executed_than_was_declared(caplog: pytest.LogCaptureFixture) -> None:
    values = np.zeros((32, 7), np.float32)
    values[:, 0] = np.arange(32) / 100
    for response in served(values):
        assert np.array_equal(response.values, values[:8])
    assert caplog.text.count("responds with 32 actions but declares chunk 8") == 1


def test_a_gripper_from_0_to_1_is_named() -> None:
    values = np.zeros((8, 7), np.float32)
    values[4:, 6] = 1
    with pytest.raises(UserError, match=r"not rolled out: ws://.*\[0\.00, 1\.00\].*send 1 - 2 \*"):
        served(values)
    values[0, 6] = -1
    served(values)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def test_no_server() -> None:
    with pytest.raises(UserError, match=r"no policy server at ws://127\.0\.0\.1:\d+ \(.*refused"):
        RemoteConfig(url=f"ws://127.0.0.1:{free_port()}").load()
    with pytest.raises(ValueError, match="ws://"):
        RemoteConfig(url="http://x")


def test_without_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("client", "server"):
        monkeypatch.delitem(sys.modules, f"libero_eval.serving.{module}", raising=False)
    monkeypatch.setitem(sys.modules, "websockets.exceptions", None)
    expected = r"need the package websockets: pip install 'invact-vla\[remote\]'"
    with pytest.raises(UserError, match=expected):
        RemoteConfig().load()
    with pytest.raises(UserError, match=expected):
        serve_policy(ServeConfig(policy=SelftestConfig()), print)


def test_a_host_that_is_none() -> None:
    with pytest.raises(UserError, match=r"cannot listen at no host:0: .*--host"):
        serve_policy(ServeConfig(policy=SelftestConfig(), host="no host", port=0), print)


def test_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(UserError, match=rf"cannot listen at 127\.0\.0\.1:{port}: .*--port"):
            serve_policy(ServeConfig(policy=SelftestConfig(), port=port), print)


def test_policies_that_read_the_simulator_cannot_be_served() -> None:
    with pytest.raises(UserError, match="reads the simulator"), local_server(DemonstratorConfig()):
        pass


def test_a_broken_connection_is_mended_once(fickle: str) -> None:
    """The episode goes on where it was: nothing is done twice, nothing forgotten."""
    wire = Wire(int(fickle.rsplit(":", 1)[1]))
    with client(f"ws://127.0.0.1:{wire.port}") as source:
        policy = source.open(None)
        policy.reset(7)
        policy.act(OBSERVATION)
        wire.cut()
        assert policy.act(OBSERVATION).values[0, :2].tolist() == pytest.approx([0.07, 0.02])
        assert wire.passed == 2
        threading.Timer(0.3, wire.cut).start()  # while the policy thinks
        assert policy.act(saying("sleep")).values[0, 1] == np.float32(0.03)
        assert policy.act(OBSERVATION).values[0, 1] == np.float32(0.04)
        wire.close()
        with pytest.raises(UserError, match="no policy server at"):
            policy.act(OBSERVATION)
        source.release(policy)  # what is over need not be said


def test_a_server_that_was_started_anew_knows_no_episode() -> None:
    with local_server(FickleConfig()) as old, local_server(FickleConfig()) as new:
        wire = Wire(int(old.rsplit(":", 1)[1]))
        with client(f"ws://127.0.0.1:{wire.port}") as source:
            policy = source.open(None)
            policy.reset(7)
            wire.target = int(new.rsplit(":", 1)[1])
            wire.cut()
            with pytest.raises(UserError, match=r"episode 0 is unknown here.*started anew"):
                policy.act(OBSERVATION)
            policy.reset(8)
            assert policy.act(OBSERVATION).values[0, :2].tolist() == pytest.approx([0.08, 0.01])
            wire.close()


def test_episodes_of_a_client_that_stays_away_are_forgotten() -> None:
    with local_server(FickleConfig(), keep_s=0.2) as url:
        wire = Wire(int(url.rsplit(":", 1)[1]))
        with client(f"ws://127.0.0.1:{wire.port}") as source:
            policy = source.open(None)
            policy.reset(7)
            wire.cut()
            time.sleep(0.8)
            with pytest.raises(UserError, match=r"unknown here.*more than 0\.2 s"):
                policy.act(OBSERVATION)
            wire.close()


def test_a_message_that_is_too_big(fickle: str) -> None:
    with client(fickle) as source:
        policy = source.open(None)
        policy.reset(0)
        big = replace(OBSERVATION, agentview=np.zeros((2400, 2400, 3), np.uint8))
        with pytest.raises(UserError, match=r"at most 16777216 bytes, this one has 172\d+"):
            policy.act(big)
        source.link.card = replace(source.card, max_bytes=1 << 30)
        with pytest.raises(UserError, match="refused a message as too big"):
            policy.act(big)


def test_a_client_of_another_version(fickle: str) -> None:
    with connect(fickle) as raw:
        raw.send(messages.encode({"call": "hello", "version": 99, "client": "x"}))
        response = messages.decode(raw.recv(5))
    assert response["error"]["kind"] == "version" and "client 99" in response["error"]["message"]


def test_requests_that_are_wrong_are_answered(fickle: str) -> None:
    with connect(fickle) as raw:

        def ask(message: object) -> dict[str, Any]:
            raw.send(message if isinstance(message, bytes) else messages.encode(message))  # type: ignore[arg-type]
            return messages.decode(raw.recv(5))

        assert ask({"call": "hello", "version": 1, "client": "y"})["name"] == "fickle"
        for wrong in (
            b"\xc1", {"call": "dance", "id": 1, "episode": 0}, {"call": "reset", "episode": 0},
            {"call": "reset", "id": 2, "episode": "x"}, {"call": "reset", "id": 3, "episode": 0},
        ):  # fmt: skip
            assert ask(wrong)["error"]["kind"] == "request", wrong
        assert ask({"call": "act", "id": 4, "episode": 5})["error"]["kind"] == "episode"
        assert ask({"call": "reset", "id": 5, "episode": 0, "seed": 1}) == {"id": 5}
        assert ask({"call": "act", "id": 6, "episode": 0})["error"]["kind"] == "request"


@contextmanager
def strange_server(
    response: Callable[[dict[str, Any]], dict[str, Any]], port: int = 0
) -> Iterator[str]:
    """A server that responds as the function says."""

    def handle(socket: ServerConnection) -> None:
        for data in socket:
            message = messages.decode(data)
            socket.send(messages.encode({"id": message.get("id"), **response(message)}))

    with serve(handle, "127.0.0.1", port) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()
        thread.join()


CARD = PolicyCard(name="strange", needs=("agentview",), chunk=2).to_message()


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ({"version": 99}, r"speaks version 99, this client 1"),
        ({"chunk": 0}, "chunk"),
        ({"needs": 3}, "not a policy's card"),
        ({"actions": {**CARD["actions"], "gripper": "0 open, 1 close"}}, "0 open, 1 close"),
        ({"error": {"kind": "version", "message": "too old"}}, "version error: too old"),
    ],
)
def test_a_strange_card(card: dict[str, Any], message: str) -> None:
    with strange_server(lambda _: {**CARD, **card}) as url, pytest.raises(UserError, match=message):
        Link(url, 5)


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.zeros((2, 6), np.float32), r"expected float32 \(N, 7\), got float32 \(2, 6\)"),
        (np.full((2, 7), 2, np.float32), r"expected \[-1\.0, 1\.0\]"),
        (np.full((2, 7), np.nan, np.float32), "NaN"),
        ([0.0] * 7, "without actions"),
    ],
)
def test_a_strange_response(actions: object, message: str) -> None:
    def response(asked: dict[str, Any]) -> dict[str, Any]:
        return CARD if asked["call"] == "hello" else {"actions": actions}

    with strange_server(response) as url, client(url) as source:
        policy = source.open(None)
        policy.reset(0)
        with pytest.raises(UserError, match=message):
            policy.act(OBSERVATION)


# -- processes


def test_the_command_serves_until_it_is_interrupted(tmp_path: Path) -> None:
    path = REPOSITORY / "configs" / "libero" / "serve_selftest.yaml"
    config = parse_config(ServeConfig, ["--config_path", str(path), "--port", "0"])
    assert isinstance(config.policy, SelftestConfig) and isinstance(config.policy, PolicyConfig)
    code = (
        "import sys; from invact_vla.config.command import parse_config, run;"
        "from libero_eval.rollout.serve import ServeConfig, main;"
        "sys.exit(run(lambda: main(parse_config(ServeConfig, sys.argv[1:]))))"
    )
    arguments = ["--config_path", str(path), "--port", "0"]
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    ) as server:
        assert server.stdout is not None
        url = server.stdout.readline().split()[-1]
        with client(url) as source:
            policy = source.open(None)
            policy.reset(0)
            assert policy.act(OBSERVATION).values.shape == (8, 7)
        server.send_signal(signal.SIGINT)
        assert server.wait(10) == 0


def test_a_local_server_ends_with_its_parent() -> None:
    code = (
        "import time; from libero_eval.policies import SelftestConfig;"
        "from libero_eval.rollout.serve import local_server\n"
        "if __name__ == '__main__':\n"
        "    with local_server(SelftestConfig()) as url:\n"
        "        print(url, flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    ) as parent:
        assert parent.stdout is not None
        port = int(parent.stdout.readline().rsplit(":", 1)[1])
        parent.kill()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            return
        time.sleep(0.05)
    pytest.fail("the server outlived its parent")
