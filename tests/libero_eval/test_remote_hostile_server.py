"""A hostile server costs its own episodes, and neither the rollout's rows nor its time or memory."""

import json
import re
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from websockets.sync.server import ServerConnection, serve

from invact_vla.core.errors import UserError
from invact_vla.core.schema import ActionChunk
from libero_eval.policies import RemoteConfig
from libero_eval.serving import messages
from libero_eval.serving.messages import PolicyCard, WireError
from libero_eval.serving.responses import MOST_KEPT, GripperRange, ResponseReader
from libero_eval.serving.text import one_line, shown
from tests.libero_eval.remote_policies import OBSERVATION
from tests.libero_eval.test_remote import CARD, strange_server

ODD = [
    None, True, 1.5, -1, 0, 2**63, float("nan"), "x" * 200, "\x1b[2J", "two\nlines", b"x", [], ["a"],
    [["a"]], {}, {"a": 1}, np.zeros(3, np.float32), np.zeros(0, np.float32),
]  # fmt: skip
HARMLESS = {"name": (), "hash": (), "needs": ([], ["a"]), "max_bytes": (2**63,), "version": ()}


@pytest.mark.parametrize("key", CARD)
def test_an_odd_card_is_refused(key: str) -> None:
    fine = [messages.encode(odd) for odd in HARMLESS.get(key, ())]  # type: ignore[arg-type]
    for odd in ODD:
        card = messages.decode(messages.encode({**CARD, key: odd}))
        if messages.encode(odd) in fine:  # type: ignore[arg-type]
            json.dumps(PolicyCard.from_message(card).to_message())
        elif key != "version":  # that is looked at before
            with pytest.raises(WireError) as caught:
                PolicyCard.from_message(card)
            assert len(str(caught.value)) < 600 and str(caught.value).isprintable()


@pytest.mark.parametrize("key", CARD["actions"])
def test_odd_actions_are_refused(key: str) -> None:
    for odd in ODD:
        if key in ("low", "high") and isinstance(odd, int) and odd == CARD["actions"][key]:
            continue
        card = {**CARD, "actions": {**CARD["actions"], key: odd}}
        with strange_server(lambda _, card=card: card) as url, pytest.raises(UserError) as caught:
            RemoteConfig(url=url).load()
        assert len(str(caught.value)) < 1500


def test_a_hash_in_rows_is_text() -> None:
    expected = pytest.raises(UserError, match="does not respond as a policy server")
    with strange_server(lambda _: {**CARD, "hash": ["a"]}) as url, expected:
        RemoteConfig(url=url).hash()  # type: ignore[arg-type]


@pytest.mark.parametrize("odd", ODD)
def test_odd_answers_are_error_rows(odd: object) -> None:
    responses = ResponseReader("ws://x", 2)
    for response in (
        {"error": odd}, {"error": {"kind": odd, "message": odd}}, {"error": {odd: 1}} if hashable(odd)
        else {}, {"actions": odd}, {"actions": [odd]}, {"more": odd},
    ):  # fmt: skip
        error = responses.chunk(response)
        assert isinstance(error, UserError), response
        assert len(str(error)) < 600 and str(error).isprintable()


def hashable(value: object) -> bool:
    return isinstance(value, str | int | float | bytes | None)


def test_a_long_traceback_becomes_a_line() -> None:
    message = (
        "Traceback (most recent call last)\n" + "  x\n" * 100_000 + "ValueError: \x1b[31mred\a"
    )
    error = ResponseReader("ws://x", 2).chunk({"error": {"kind": "policy", "message": message}})
    assert str(error) == "ws://x: policy error: ValueError: [31mred"


def endless(response: Callable[[], Any]) -> Callable[[ServerConnection], None]:
    """A server that greets, and then sends without end, whatever it is asked."""

    def handle(raw: ServerConnection) -> None:
        raw.recv()
        raw.send(messages.encode(CARD))
        try:
            while True:
                raw.send(response())
        except Exception:  # noqa: BLE001 - the client has gone
            return

    return handle


def served(handle: Callable[[ServerConnection], None]) -> tuple[Any, str]:
    server = serve(handle, "127.0.0.1", 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"ws://127.0.0.1:{server.socket.getsockname()[1]}"


@pytest.mark.parametrize("text", [{"id": 10**6}, {"id": "x"}, {"id": [1]}, {"id": True}])
def test_one_that_never_stops_talking(text: dict[str, Any]) -> None:
    packed: Any = msgpack.packb(text)
    server, url = served(endless(lambda: packed))
    try:
        source = RemoteConfig(url=url, first_response_s=0.5).load()
        started = time.monotonic()
        with pytest.raises(UserError, match="gave no response within"):
            source.open(None).reset(1)
        assert time.monotonic() - started < 3
        source.close()
    finally:
        server.shutdown()


def test_one_that_sends_a_bomb() -> None:
    bomb = b"\x81\xa1a\xdd\x00\xff\xff\xff" + b"\x80" * (15 << 20)
    server, url = served(endless(lambda: bomb))
    try:
        source = RemoteConfig(url=url).load()
        with pytest.raises(UserError, match="responded with not a message"):
            source.open(None).reset(1)
        source.close()
    finally:
        server.shutdown()


def test_a_silence_between_two_calls_does_not_break_the_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Longer than a response may take: the simulator has its turn."""
    chunk = np.zeros((2, 7), np.float32)
    with strange_server(lambda m: CARD if m["call"] == "hello" else {"actions": chunk}) as url:
        source = RemoteConfig(url=url, timeout_s=0.3, first_response_s=0.5).load()
        policy = source.open(None)
        for _ in range(3):
            assert isinstance(policy.act(OBSERVATION), ActionChunk)
            time.sleep(0.8)
        source.close()
    assert "connection broke" not in caplog.text


def test_one_that_never_reads() -> None:
    """Sending has an end too."""
    release = threading.Event()

    def handle(raw: ServerConnection) -> None:
        raw.recv()
        raw.send(messages.encode(CARD))
        release.wait(20)
        raw.socket.close()

    server, url = served(handle)
    try:
        source = RemoteConfig(url=url, timeout_s=0.5, first_response_s=0.5).load()
        requests = [(source.open(None), OBSERVATION) for _ in range(3000)]
        started = time.monotonic()
        responses = source.act_apart(requests)
        assert all(isinstance(a, UserError) for a in responses)
        assert time.monotonic() - started < 15
    finally:
        release.set()
        server.shutdown()


def test_the_memory_of_a_gripper_is_bounded() -> None:
    watch = GripperRange()
    for n in range(3000):
        assert watch.fault(np.linspace(0.3, 0.7, 500) + n * 1e-9) is None
    assert len(watch._seen) <= MOST_KEPT
    assert watch.fault(np.array([1.0])) is not None


def test_what_is_shown_is_short() -> None:
    for value in (
        "x" * 10**6, b"x" * 10**6, ["x" * 1000] * 200, {"x" * 1000: 1}, np.zeros((7,) * 8, np.uint8),
        msgpack.ExtType(1, b"x" * 10**6), [[[[[[1]]]]]], "\x1b[2J\n",
    ):  # fmt: skip
        started = time.process_time()
        text = shown(value)
        assert len(text) <= 220 and text.isprintable() and time.process_time() - started < 0.1
    assert one_line("a\n b\tc") == "a b c" and one_line("x" * 300).endswith("...")


# -- the secret of a URL


@pytest.mark.parametrize(
    "url",
    ["ws://user:hunter2@127.0.0.1:{}", "ws://:hunter2@127.0.0.1:{}", "ws://u:a@hunter2@127.0.0.1:{}",
     "ws://u:a/hunter2@127.0.0.1:{}", "ws://hunter2@127.0.0.1:{}", "ws://u:a?hunter2@127.0.0.1:{}",
     "ws://u:a#hunter2@127.0.0.1:{}", "ws://u:hunter2@[::1]:{}"],
)  # fmt: skip
def test_a_password_is_never_shown(url: str, caplog: pytest.LogCaptureFixture) -> None:
    import pickle

    import draccus
    import yaml

    caplog.set_level("DEBUG", "libero_eval")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    config = RemoteConfig(url=url.format(port))  # type: ignore[arg-type]
    stored = yaml.safe_dump(draccus.encode(config))
    shown_ = [stored, repr(config), str(config.url), f"{config.url}", repr(config.url), caplog.text]
    with pytest.raises(UserError) as caught:
        config.load()
    shown_ += [str(caught.value), policy_hash(config)]
    assert not [text for text in shown_ if "hunter2" in text]
    assert f"{port}" in stored
    assert pickle.loads(pickle.dumps(config)).url.full == url.format(port), "workers get it"
    again = draccus.decode(RemoteConfig, yaml.safe_load(stored))
    assert again == config


def policy_hash(config: RemoteConfig) -> str:
    from libero_eval.policies import PolicyConfig

    assert PolicyConfig.hash(config) == PolicyConfig.hash(RemoteConfig(url=config.url))
    return PolicyConfig.hash(config)


def test_a_password_is_used_and_not_written(tmp_path: Path) -> None:
    """By a whole run folder."""
    from invact_vla.core.run_folder import open_run
    from libero_eval.rollout.command import RolloutConfig

    config = RolloutConfig(
        out=tmp_path / "run",
        policy=RemoteConfig(url="ws://user:hunter2@localhost:1"),  # type: ignore[arg-type]
    )
    run = open_run(config.out, config)
    again = RolloutConfig(out=config.out, policy=RemoteConfig(url="ws://localhost:1"))  # type: ignore[arg-type]
    assert open_run(again.out, again).key == run.key, "another password is no other run"
    written = b"".join(p.read_bytes() for p in config.out.rglob("*") if p.is_file())
    assert b"hunter2" not in written and b"localhost:1" in written


@pytest.mark.parametrize(
    "words",
    [
        ["--policy.type", "remote", "--policy.ulr", "ws://u:hunter2@h:1"],
        ["--policy.type", "remote", "--policy.url", "http://u:hunter2@h:1"],
        ["--policy.type", "remote", "--policy.url", "ws://u:hunter2@h:notaport"],
        ["--policy.type", "remote", "--policy.url", "ws:u:hunter2@h:1"],
        ["--policy.type", "remote", "--policy.url", "u:hunter2@h:1"],
        ["--policy.type", "remote", "--policy.url=ws://u:hun'hunter2@h:1"],
        ["ws://u:hunter2@h:1"],
    ],
)
def test_mistakes_on_the_command_line_do_not_print_it(
    words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from invact_vla.app.cli import main

    with pytest.raises(SystemExit) as stop:
        main(["libero", "rollout", "--out", str(tmp_path / "x"), *words])
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and "error" in err
    assert "hunter2" not in out + err, re.sub("hunter2", "***", err)


def test_a_response_of_numbers_is_taken() -> None:
    chunk = ResponseReader("ws://x", 2).chunk({"actions": np.zeros((2, 7), np.float32)})
    assert isinstance(chunk, ActionChunk)
