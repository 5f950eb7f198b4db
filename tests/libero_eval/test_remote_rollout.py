"""The command `libero rollout` against servers of strangers, and `libero serve` when its work ends."""

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection

from invact_vla.app import cli
from libero_eval.env import gl
from libero_eval.results.rows import read_episodes
from libero_eval.rollout import command as rollout
from libero_eval.serving import messages
from tests.libero_eval.point_sim import open_point_sim
from tests.libero_eval.remote_raw import act, ask, greeted, reset
from tests.libero_eval.test_remote import CARD
from tests.libero_eval.test_remote_hostile_server import served
from tests.libero_eval.test_rollout_runs import BlankPack
from tests.paths import REPOSITORY

Message = dict[str, Any]
GOOD = np.full((2, 7), 0.9, np.float32)
ESCAPES = '\x1b[2J\x1b]0;owned\x07\r\n{"outcome": "success"}\u2028\u202e\0'


def responded(**fields: Any) -> Callable[[int], Message]:
    return lambda _: fields


def lies(values: Any) -> Callable[[int], Message]:
    return responded(actions=np.asarray(values))


def forged(data: bytes) -> Callable[[int], Message]:
    """An array whose bytes are not what they claim."""
    packed: Any = msgpack.ExtType(messages.ARRAY, data)
    return responded(actions=packed)


def leaves(_: int) -> Message:
    raise EOFError


@contextmanager
def hostile(response: Callable[[int], Message], **card: Any) -> Iterator[str]:
    """A server that greets with this card, resets as asked, and acts as `response` of the call's number
    in its connection says; EOFError closes the connection."""

    def handle(raw: ServerConnection) -> None:
        count = 0
        raw.send(messages.encode({**CARD, "chunk": 2, **card}) if raw.recv() else b"")
        try:
            while True:
                call = messages.decode(raw.recv())
                count += call["call"] == "act"
                said = response(count) if call["call"] == "act" else {}
                packed: Any = msgpack.packb(
                    {"id": call["id"], **said}, default=messages._pack_array
                )
                raw.send(packed)
        except (EOFError, ConnectionClosed):
            return

    server, url = served(handle)
    try:
        yield url
    finally:
        server.shutdown()


@pytest.fixture
def toy_world(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout, "OpenLibero", lambda *_: open_point_sim)
    monkeypatch.setattr(gl, "probe", lambda: "egl")


def command(url: str, out: Path, *options: str) -> int:
    """The exit code of the command: 2 tasks, 2 episodes each."""
    assert BlankPack.__name__
    with pytest.raises(SystemExit) as ended:
        cli.main([
            "libero", "rollout", "--out", str(out), "--policy.type", "remote", "--policy.url", url,
            "--policy.timeout_s", "1", "--policy.first_response_s", "1", "--assets.type", "blank",
            "--assets.folder", str(out.parent / "blank"), "--tasks", "[0, 1]", "--episodes", "2",
            "--max_steps", "12", "--videos.per_task", "0", "--videos.first_success", "false", *options,
        ])  # fmt: skip
    assert isinstance(ended.value.code, int)
    return ended.value.code


def rows_of(out: Path) -> Counter[str]:
    """Outcomes of the rows, each of which is one short line of JSON."""
    text = (out / "episodes.jsonl").read_text()
    lines = text.splitlines()
    assert text.endswith("\n") and len(lines) == text.count("\n")
    for line in lines:
        row = json.loads(line)
        assert len(line) < 6000 and row["checkpoint_hash"].isprintable()
        assert all(part.isprintable() for part in row["reason"].splitlines())
    return Counter(row.outcome for row in read_episodes(out))


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that the command ended with."""
    lines = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    assert len(lines) == 1 and lines[0].isprintable() and len(lines[0]) < 1500, lines
    return lines[0]


@pytest.mark.usefixtures("toy_world")
@pytest.mark.parametrize(
    ("response", "card"),
    [
        (lies(GOOD), {}), (lies(GOOD.astype(np.float64)), {"hash": "h" * 128, "name": "é <b>"}),
        (lies(np.repeat(GOOD, 400, 0)), {}),
        (lambda count: leaves(count) if count == 2 else {"actions": GOOD}, {}),
        (lambda _: {"actions": GOOD, "more": ESCAPES, "id2": [1]}, {}),
    ],
    ids=["good", "doubles", "too many", "closes after the first", "more than asked"],
)  # fmt: skip
def test_answers_that_can_be_used(
    response: Callable[[int], Message], card: Message, tmp_path: Path
) -> None:
    with hostile(response, **card) as url:
        assert command(url, tmp_path / "run") == 0
    assert rows_of(tmp_path / "run") == {"success": 4}
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert (summary["k"], summary["n"]) == (4, 4)


@pytest.mark.usefixtures("toy_world")
@pytest.mark.parametrize(
    "response",
    [
        lies(GOOD[:, :6]), lies(GOOD[None]), lies(np.zeros((0, 7), np.float32)),
        lies(GOOD * np.nan), lies(GOOD * 1e9), lies(GOOD > 0), responded(actions=GOOD.tolist()),
        responded(actions=ESCAPES), responded(actions=None), responded(), responded(outcome="success"),
        responded(error={"kind": ESCAPES, "message": ESCAPES * 1000}), responded(error=ESCAPES),
        responded(error={"kind": "policy", "message": ESCAPES}), responded(error={ESCAPES: [ESCAPES]}),
        forged(b"\x93\xa3|O8\x91\x01\xc4\x01x"),
        forged(b"\x93\xa3<f4\x92\xce\x7f\xff\xff\xff\x07\xc4\x00"),
        forged(b"x"), lambda count: {"id": count + 10**6, "actions": GOOD}, responded(id=None),
        responded(id=[1], error=ESCAPES), leaves,
    ],
)  # fmt: skip
def test_answers_that_are_error_rows(
    response: Callable[[int], Message], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with hostile(response) as url:
        assert command(url, tmp_path / "run", "--max_errors", "2") == 2
    assert "2 episodes ended as errors" in said(capsys)
    assert rows_of(tmp_path / "run") == {"error": 2}
    with hostile(lies(GOOD)) as other:  # and an honest server goes on with the same rows
        assert command(other, tmp_path / "run", "--overwrite", "true") == 0
    assert rows_of(tmp_path / "run") == {"success": 4}


@pytest.mark.usefixtures("toy_world")
@pytest.mark.parametrize(
    "card",
    [
        {"hash": ["a"]}, {"hash": ESCAPES}, {"hash": None}, {"hash": {"a": 1}}, {"name": ESCAPES},
        {"name": "x" * 10**6}, {"name": 1}, {"needs": ["wrist", ESCAPES]}, {"needs": ["a"] * 300},
        {"needs": "agentview"}, {"needs": ["front"]}, {"chunk": 0}, {"chunk": 2**40},
        {"chunk": True}, {"max_bytes": -1}, {"max_bytes": 10}, {"version": ESCAPES}, {"version": 99},
        {"actions": {}}, {"actions": {**CARD["actions"], "frame": ESCAPES}},
        {"error": {"kind": ESCAPES, "message": ESCAPES}},
    ],
    ids=lambda card: ascii(card)[:60],
)  # fmt: skip
def test_cards_that_are_refused(
    card: Message, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with hostile(lies(GOOD), **card) as url:
        assert command(url, tmp_path / "run", "--max_errors", "1") == 2
    assert url in said(capsys) or "front" in card.get("needs", ())
    rows = tmp_path / "run/episodes.jsonl"
    assert not rows.exists() or rows_of(tmp_path / "run") == {"error": 1}


@pytest.mark.usefixtures("toy_world")
def test_a_card_that_changes_on_the_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows of one run are of one policy."""
    connections = iter(range(1000))

    def handle(raw: ServerConnection) -> None:
        raw.recv()
        number = next(connections)
        raw.send(messages.encode({**CARD, "chunk": 2, "hash": f"h{max(0, number - 2)}"}))
        try:
            raw.send(messages.encode({"id": messages.decode(raw.recv())["id"]}))
            raw.recv()
        except ConnectionClosed:
            return

    server, url = served(handle)
    try:
        assert command(url, tmp_path / "run", "--max_errors", "1") == 2
    finally:
        server.shutdown()
    assert "serves another policy than before" in said(capsys)
    assert rows_of(tmp_path / "run") == {"error": 1}


SABOTAGED = """
import asyncio, sys
from invact_vla.app import cli
from libero_eval.serving.batcher import Batcher
from libero_eval.serving.episodes import Episodes
import tests.libero_eval.remote_policies

async def broken(self):
    {what}
    return

{where} = broken
cli.main(["libero", "serve", "--policy.type", "fickle", "--port", "0", "--keep_s", "0.2"])
"""


END = {
    "raise": "raise ArithmeticError('ours')",
    "cancel": "raise asyncio.CancelledError",
    "return": "",
}


ENDS = [(where, what) for where in ("Batcher.run", "Episodes.forget_in_time") for what in END]
ENDS += [("Batcher._run_batch", what) for what in ("raise", "cancel")]


@pytest.mark.parametrize(("where", "what"), ENDS)
def test_the_command_ends_loudly_when_its_work_does(where: str, what: str) -> None:
    code = SABOTAGED.format(where=where, what=END[what])
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=REPOSITORY,
    ) as server:  # fmt: skip
        assert server.stdout is not None and server.stderr is not None
        try:
            url = server.stdout.readline().split()[-1]
            if where == "Batcher._run_batch":
                with greeted(url, close_timeout=0.1) as raw:
                    ask(raw, reset(1))
                    raw.send(messages.encode(act(2)))
                    assert server.wait(15) == 1
            assert server.wait(15) == 1
        finally:
            server.kill()
        words = server.stderr.read()
    assert re.search(r"^the task that .* has ended: the server cannot go on$", words, re.MULTILINE)
