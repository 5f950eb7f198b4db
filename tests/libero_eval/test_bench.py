"""The benchmark: what it counts, what it prints, and that a loop of it runs."""

import importlib.util
import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

if importlib.util.find_spec("robosuite") is None:
    pytest.skip("needs the libero extra", allow_module_level=True)

from invact_vla.core.errors import UserError
from libero_eval.bench import rollout as bench
from libero_eval.bench.loops import BenchJob, Phase, actions
from libero_eval.bench.rollout import BenchRolloutConfig, Round
from libero_eval.env.assets.pack import ProceduralPack
from libero_eval.executors.child_process import ONE_THREAD

ROUND = Round(
    task=0, every_step=(10.0, 40.0), chunks=(10.0, 150.0), cpu_ms=(150.0, 30.0),
    chunk_cpu_ms=(150.0, 10.0), reset_ms=(2000.0, 40.0), start_ms=(3000.0, 80.0),
    frame_ms=(60.0, 30.0), physics=400.0, steps=(64, 128),
)  # fmt: skip


def test_rates() -> None:
    first = Phase(stepping=[1.0, 1.0], cpu=[0.5, 0.5], steps=40)
    second = Phase(stepping=[2.0], cpu=[1.0], steps=20)
    assert bench.rate([first]) == 20
    assert bench.rate([first, second]) == 30, "processes side by side add up"
    assert bench.cpu_ms([first, second]) == pytest.approx(2000 / 60)
    assert bench.median_ms([Phase(resets=[1.0, 3.0]), Phase(resets=[2.0])], "resets") == 2000


def test_report_names_ratios_and_conditions() -> None:
    config = BenchRolloutConfig(tasks=(0,))
    numbers = {"load": [0.5, 2.0], "pack": "official", "cpu": "A CPU"}
    faster = bench.Round(**{**asdict(ROUND), "every_step": (10.0, 60.0)})
    table = bench.report(config, [ROUND, faster], numbers)
    rows = {line[:24].strip(): line for line in table.splitlines()}
    assert rows["one camera every step"].endswith("5.0 (4.0 - 6.0)")
    assert rows["reset"].endswith("50.0 (50.0 - 50.0)")
    assert "400.0" in rows["no frames (the limit)"]
    assert "load 0.5 before and 2.0 after" in table and "A CPU" in table and "2 rounds" in table


def test_actions_are_the_same_in_every_loop() -> None:
    assert (actions(5) == actions(9)[:5]).all() and abs(actions(50)).max() <= 1


def test_threads_of_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda *words, **named: started.append(named["env"]))
    monkeypatch.setenv("LP_NUM_THREADS", "7")
    job = BenchJob(
        loop="public", protocol="libero_10/openvla", task=0, assets="", first=0, episodes=1,
        steps=1, chunks=[1],
    )  # fmt: skip
    bench.start(job)
    bench.start(replace(job, loop="ours"))
    assert not set(ONE_THREAD) & set(started[0]), "the public loop sets none"
    assert ONE_THREAD.items() <= started[1].items()


def test_a_loop_that_dies_is_named() -> None:
    words = [sys.executable, "-c", "print('noise'); raise SystemExit(3)"]
    with (
        subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child,
        pytest.raises(UserError, match="exit code 3"),
    ):
        bench.listen(child)


def test_wrong_configs() -> None:
    with pytest.raises(ValueError, match="steps"):
        BenchRolloutConfig(steps=0)
    with pytest.raises(ValueError, match="task"):
        BenchRolloutConfig(tasks=())


@pytest.mark.slow
def test_all_loops_in_miniature(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = BenchRolloutConfig(
        assets=ProceduralPack(), tasks=(2,), repeats=1, episodes=1, steps=4, chunk=2, workers=1,
        out=tmp_path / "bench",
    )  # fmt: skip
    assert bench.main(config) == 0
    assert "times faster" in capsys.readouterr().out
    (row,) = json.loads((tmp_path / "bench/bench.json").read_text())["rounds"]
    assert row["steps"] == [4, 4] and row["physics"] > row["every_step"][1] > 0
    assert row["reset_ms"][0] > row["reset_ms"][1], "a hard reset takes longer than a soft one"
