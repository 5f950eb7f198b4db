"""Whatever a policy raises is a response to its client; whatever ends the work ends the server."""

import asyncio
import logging
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from invact_vla.core.errors import UserError
from invact_vla.core.schema import ActionChunk, Observation, Policy
from libero_eval.policy_source import EachEpisode, PolicyRequest, PolicySource
from libero_eval.serving import messages
from libero_eval.serving.batcher import Batcher
from libero_eval.serving.server import function_source
from tests.libero_eval.remote_policies import OBSERVATION, Fickle
from tests.libero_eval.remote_raw import act, ask, greeted, reset, serving
from tests.paths import REPOSITORY


class Mute(Exception):
    def __str__(self) -> str:
        raise SystemExit("cannot even say it")


def bare_next() -> None:
    next(iter(()))


RAISES: dict[str, Callable[[], BaseException]] = {
    "StopIteration": StopIteration,
    "StopAsyncIteration": StopAsyncIteration,
    "CancelledError": asyncio.CancelledError,
    "GeneratorExit": GeneratorExit,
    "SystemExit": lambda: SystemExit(3),
    "KeyboardInterrupt": KeyboardInterrupt,
    "TimeoutError": asyncio.TimeoutError,
    "InvalidStateError": asyncio.InvalidStateError,
    "MemoryError": MemoryError,
    "RecursionError": RecursionError,
    "BaseException": BaseException,
    "Mute": Mute,
    "UserError": lambda: UserError("a\nb" * 10_000),
    "UnicodeError": lambda: ValueError("\udcff" * 100_000),
}


class Raising(Fickle):
    """Raises what its instruction, or its seed, names."""

    def reset(self, seed: int) -> None:
        if seed < 0:
            raise list(RAISES.values())[-1 - seed]()
        super().reset(seed)

    def act(self, observation: Observation) -> ActionChunk:
        if observation.instruction == "next":
            bare_next()
        if observation.instruction in RAISES:
            raise RAISES[observation.instruction]()
        return super().act(observation)


class Batched(PolicySource):
    """The same, many at once."""

    batched = True

    def open(self, sim: object) -> Raising:
        return Raising()

    def act(self, requests: Sequence[PolicyRequest]) -> list[ActionChunk]:
        for policy, observation in requests:
            if observation.instruction in (*RAISES, "next"):
                policy.act(observation)
        return [policy.act(observation) for policy, observation in requests]


@pytest.mark.parametrize("source", [EachEpisode(Raising), Batched()])
def test_any_raise_is_a_response(source: PolicySource, caplog: pytest.LogCaptureFixture) -> None:
    with (
        serving(source, max_wait_ms=1) as url,
        greeted(url, "a") as one,
        greeted(url, "b") as other,
    ):
        ask(one, reset(0)), ask(other, reset(0))
        numbers = iter(range(1, 1000))
        for name in (*RAISES, "next"):
            response = ask(one, act(next(numbers), instruction=name))
            assert response["error"]["kind"] == "policy", (name, response)
            assert len(response["error"]["message"]) < 1100
            assert "actions" in ask(other, act(next(numbers)))
        for place in range(len(RAISES)):
            response = ask(one, reset(next(numbers), seed=-1 - place))
            assert response["error"]["kind"] == "policy", (place, response)
        assert "actions" in ask(one, act(next(numbers)))
    assert "the policy failed" in caplog.text


class OpensNot(PolicySource):
    """Opens one policy, that of its card; no other, nor does it release any but that."""

    def __init__(self, kind: Callable[[], BaseException], opens: int) -> None:
        self.kind, self.opens, self.released = kind, opens, 0

    def open(self, sim: object) -> Fickle:
        self.opens -= 1
        if self.opens < 0:
            raise self.kind()
        return Fickle()

    def release(self, policy: object) -> None:
        self.released += 1
        if self.released > 1:
            raise self.kind()


@pytest.mark.parametrize("name", ["StopIteration", "CancelledError", "SystemExit"])
def test_opening_and_releasing_may_raise(name: str) -> None:
    with serving(OpensNot(RAISES[name], 2)) as url, greeted(url) as raw:
        assert ask(raw, reset(1, episode=1)) == {"id": 1}
        for number in range(2, 5):
            assert name in ask(raw, reset(number, episode=2))["error"]["message"]
        assert ask(raw, act(5, episode=2))["error"]["kind"] == "episode", "it has no place either"
        release = {"call": "release", "id": 6, "episode": 1}
        assert name in ask(raw, release)["error"]["message"]
        assert ask(raw, {**release, "id": 7}) == {"id": 7}


class Wrong(PolicySource):
    """ResponseReader with what is no response."""

    def __init__(self, responses: object) -> None:
        self.responses = responses

    def open(self, sim: object) -> Fickle:
        return Fickle()

    def act_apart(self, requests: Sequence[PolicyRequest]) -> object:  # type: ignore[override]
        return self.responses


@pytest.mark.parametrize("responses", [None, [], [None], [1, 2], 7, [StopIteration()]])
def test_a_source_that_answers_wrongly(responses: object) -> None:
    with serving(Wrong(responses)) as url, greeted(url) as raw:
        ask(raw, reset(1))
        for number in (2, 3):
            assert ask(raw, act(number))["error"]["message"]


def test_in_process_a_stop_iteration_is_an_answer_and_ctrl_c_is_not() -> None:
    source = EachEpisode(Raising)
    [response] = source.act_apart([(Raising(), _saying("next"))])
    assert isinstance(response, RuntimeError) and "StopIteration" in str(response)
    with pytest.raises(KeyboardInterrupt):
        source.act_apart([(Raising(), _saying("KeyboardInterrupt"))])


def _saying(instruction: str) -> Observation:
    return Observation(OBSERVATION.agentview, None, OBSERVATION.state, instruction)


@pytest.mark.parametrize("turns", range(6))
def test_the_work_can_be_cancelled_at_any_time(turns: int) -> None:
    """Also while work arrives; else a server would not end."""

    async def cancel() -> None:
        batcher = Batcher(Batched(), lambda: 9, 9, 60.0)
        working = asyncio.create_task(batcher.run())
        acting = asyncio.create_task(batcher.act("x", Raising(), OBSERVATION))
        await asyncio.sleep(0.01)
        more = asyncio.create_task(batcher.act("x", Raising(), OBSERVATION))
        for _ in range(turns):
            await asyncio.sleep(0)
        working.cancel()
        await asyncio.wait({working}, timeout=1)
        assert working.done()
        acting.cancel(), more.cancel()
        batcher.close(1)

    asyncio.run(cancel())


@pytest.mark.parametrize("end", ["cancel", "raise"])
def test_a_server_without_its_work_ends_loudly(
    end: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(self: Batcher) -> None:
        if end == "cancel":
            raise asyncio.CancelledError
        raise ArithmeticError("a mistake of ours")

    monkeypatch.setattr(Batcher, "_run_batch", broken)
    failures = []
    monkeypatch.setattr("threading.excepthook", lambda args: failures.append(args.exc_value))
    with serving(EachEpisode(Fickle)) as url, greeted(url) as raw:
        ask(raw, reset(1))
        with pytest.raises(Exception, match="1001"):  # going away, and not silence
            ask(raw, act(2))
        deadline = time.monotonic() + 10
        while not failures and time.monotonic() < deadline:
            time.sleep(0.05)
    assert "the task that asks the policy has ended" in str(failures[0])
    assert [r.levelno for r in caplog.records if "has ended" in r.message] == [logging.CRITICAL]


def test_what_a_client_sends_does_not_reach_the_terminal_as_it_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Neither by a policy's error, nor as a line that looks like the log's own."""

    def policy(observation: Observation) -> np.ndarray:
        raise ValueError(f"unknown task {observation.instruction}")

    source = function_source(policy, needs=("agentview",), chunk=1)
    with serving(source) as url, greeted(url) as raw:
        ask(raw, reset(1))
        message = ask(raw, act(2, instruction="\x1b[2J\nall is well\r" + "x" * 4000))
        assert message["error"]["message"].isprintable()
    [text] = [r.getMessage() for r in caplog.records if "the policy failed" in r.getMessage()]
    assert "unknown task ?[2J" in text and len(text) < 20_000
    assert "\x1b" not in text and "\r" not in text and "\nall is well" not in text


def test_an_episode_that_cannot_be_opened_does_not_keep_the_others_of_a_client_that_left() -> None:
    """They are released, though the one of them that fails meanwhile leaves the list."""
    opening, released, opened = threading.Event(), [], []

    class Failing(EachEpisode):
        def open(self, sim: object) -> Policy:
            if len(opened) == 2:  # the first was for the card
                opened.append(None)
                opening.wait(5)
                raise RuntimeError("no more")
            opened.append(None)
            return super().open(sim)

        def release(self, policy: Policy) -> None:
            released.append(policy)

    with serving(Failing(Fickle), keep_s=0.0) as url:
        with greeted(url) as raw:
            ask(raw, reset(1, episode=0))
            raw.send(messages.encode(reset(2, episode=1)))
            while len(opened) < 3:
                time.sleep(0.01)
            raw.send(messages.encode(reset(3, episode=2)))
            time.sleep(0.1)
        time.sleep(0.3)
        opening.set()
        deadline = time.monotonic() + 5
        while len(released) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert len(released) == 3  # the policy of the card, and those of two episodes


SERVER = """
import sys, time
import numpy as np
from libero_eval.serving.server import function_source, serve

def act(observation):
    if observation.instruction == "sleep":
        time.sleep(3600)
    while observation.instruction == "spin":
        pass
    return np.zeros((1, 7))

serve(function_source(act, needs=("agentview",), chunk=1), name="x", port=0,
      ready=lambda url: print(url, flush=True))
"""


@pytest.mark.parametrize(
    ("hang", "number"),
    [("go", signal.SIGINT), ("sleep", signal.SIGTERM), ("spin", signal.SIGTERM)],
)
def test_a_signal_ends_a_server_whose_policy_hangs(hang: str, number: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SERVER)], stdout=subprocess.PIPE, text=True,
        cwd=REPOSITORY, stderr=subprocess.PIPE,
    ) as server:  # fmt: skip
        assert server.stdout is not None and server.stderr is not None
        with greeted(server.stdout.readline().strip(), close_timeout=1) as raw:
            ask(raw, reset(1))
            for n in range(2, 400):  # more than are read before the first is responded to
                raw.send(messages.encode(act(n, instruction=hang)))
            time.sleep(0.3)
            server.send_signal(number)
            started = time.monotonic()
            assert server.wait(10) == 0
            assert time.monotonic() - started < 6
        assert ("left behind" in server.stderr.read()) == (hang != "go")
