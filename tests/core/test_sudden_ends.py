"""A run that is killed anywhere goes on, and makes what it would have made."""

import json
import os
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from invact_vla.core import run_folder
from invact_vla.core.files import (
    atomic_file,
    atomic_folder,
    hash_json,
    hash_tree,
    read_json,
    write_json,
)
from invact_vla.core.run_folder import open_run
from invact_vla.training.loop import LoopConfig, fit
from invact_vla.training.metrics_log import MetricsLog
from tests.kills import killed_after, killed_at

STEPS = 2


@dataclass(frozen=True, kw_only=True)
class Config:
    out: Path
    size: int = 1


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill loses nothing that was written: the disk need not be waited for."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(run_folder, "git_commit", lambda: None)
    monkeypatch.setattr(run_folder, "package_versions", dict)


def stage(folder: Path, size: int = 1, overwrite: bool = False) -> None:
    """What stages do: rows, checkpoints, a product that follows from them, the mark at the end."""
    run = open_run(folder, Config(out=folder, size=size), overwrite=overwrite)
    if run.finished:
        return
    run.ran_on("cpu")
    point = folder / "checkpoint"
    first, value = 0, ""
    if point.exists():
        first, value = read_json(point / "step.json")["step"], (point / "value").read_text()
    names = {"log_every": 1, "steps": STEPS, "batch_size": 1, "trackers": ()}
    log = MetricsLog(folder, first, SimpleNamespace(**names), None)
    for step in range(first, STEPS):
        value = hash_json([value, step, size])
        log.add(step, 0.1, {"loss": int(value, 16) / 2.0**64, "gradient_norm": None})
        with atomic_folder(point) as temporary:
            (temporary / "value").write_text(value)
            write_json(temporary / "step.json", {"step": step + 1})
    with atomic_folder(folder / "model") as temporary:
        (temporary / "weights").write_text(value)
    with atomic_file(folder / "table.txt") as temporary:
        temporary.write_text(value)
    run.finish({"value": value})


def product(folder: Path) -> dict[str, object]:
    """All that a run leaves, but for times."""
    assert read_json(folder / "provenance.json")["key"] == read_json(folder / "done.json")["key"]
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*")}
    found: dict[str, object] = {
        name: (folder / name).read_text()
        for name in names
        if (folder / name).is_file() and not name.endswith((".json", ".jsonl", ".yaml"))
    }
    config = yaml.safe_load((folder / "config.yaml").read_text())
    times = {"seconds": 0}
    return found | {
        "names": names,
        "rows": [row | times for row in rows],
        "summary": read_json(folder / "summary.json"),
        "provenance": read_json(folder / "provenance.json") | {"started": 0},
        "config": config | {"out": ""},
        "done": read_json(folder / "done.json") | times,
    }


def nothing(folder: Path) -> None:
    folder.mkdir()


def mistaken(folder: Path) -> None:
    """A run of another config, ended before it made anything."""
    open_run(folder, Config(out=folder, size=9))


def finished(folder: Path) -> None:
    """A run of another config, ended well."""
    stage(folder, size=9)


def resumed(folder: Path) -> None:
    """A run that was killed between the two steps that replace its checkpoint."""
    for point in range(40, 60):
        shutil.rmtree(folder, ignore_errors=True)
        assert killed_at(point, lambda: stage(folder))
        if (folder / ".old-checkpoint").exists() and not (folder / "checkpoint").exists():
            return
    pytest.fail("no point between the two steps")


@pytest.mark.parametrize(
    ("before", "points"),
    [
        (nothing, 200),
        (mistaken, 20),
        pytest.param(finished, 50, marks=pytest.mark.slow),
        pytest.param(resumed, 200, marks=pytest.mark.slow),
    ],
)
def test_killed_at_every_point_the_product_is_the_same(
    tmp_path: Path, before: Callable[[Path], None], points: int
) -> None:
    """Once each, with a whole run after it. points: behind them nothing of the start is left."""
    stage(tmp_path / "whole")
    before(tmp_path / "before")
    wanted, overwrite = product(tmp_path / "whole"), before is finished
    for point in range(1, points + 1):
        folder = tmp_path / f"{point}"
        shutil.copytree(tmp_path / "before", folder)
        is_killed = killed_at(point, lambda folder=folder: stage(folder, 1, overwrite))
        if before is resumed:
            open_run(folder, Config(out=folder))
            assert (folder / "checkpoint/step.json").exists(), f"lost at point {point}"
        stage(folder, 1, overwrite)
        assert product(folder) == wanted, f"killed at point {point}"
        if not is_killed:
            break
    assert point >= 20


def test_killed_again_and_again_it_still_ends(tmp_path: Path) -> None:
    """Every start is killed, a point later than the one before, what it finds being torn."""
    stage(tmp_path / "whole")
    folder, point = tmp_path / "torn", 1
    finished(folder)
    while killed_at(point, lambda: stage(folder, 1, overwrite=True)):
        point += 1
    assert product(folder) == product(tmp_path / "whole") and point > 15


def test_a_replacement_that_is_killed_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    """Also outside of run folders, where the next writer puts it right."""

    def write(text: str) -> None:
        with atomic_folder(tmp_path / "d") as temporary:
            (temporary / "x").write_text(text)

    write("old")
    before, point = hash_tree(tmp_path / "d"), 1
    while killed_at(point, lambda: write("new")):
        there = (tmp_path / "d/x", tmp_path / ".old-d/x")
        assert any(p.exists() and p.read_text() in ("old", "new") for p in there), point
        write("old")
        assert hash_tree(tmp_path / "d") == before, point
        assert not (tmp_path / ".old-d").exists()
        point += 1
    assert (tmp_path / "d/x").read_text() == "new" and point > 5


def train(folder: Path) -> None:
    """A small training with checkpoints, as a stage."""
    run = open_run(folder, Config(out=folder))
    if run.finished:
        return
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.1), torch.nn.Linear(8, 1))
    config = LoopConfig(steps=16, batch_size=8, checkpoint_every=2, log_every=2, ema=0.9)

    def batch_at(step: int) -> torch.Tensor:
        return torch.randn(8, 4, generator=torch.Generator().manual_seed(step))

    fit(model, lambda m, batch, step: (m(batch).pow(2).mean(), {}), batch_at, config, folder)
    with atomic_folder(folder / "model") as temporary:
        torch.save(model.state_dict(), temporary / "weights.pt")
    run.finish({"weights": hash_json([p.tolist() for p in model.parameters()])})


@pytest.mark.slow
@pytest.mark.stress
def test_a_hundred_kills_at_random(tmp_path: Path) -> None:
    """Of a training that writes a checkpoint every other step; each run is started again until it
    ends."""
    train(tmp_path / "imports what it needs")
    start = time.monotonic()
    train(tmp_path / "whole")
    longest = time.monotonic() - start
    rng, kills, runs = random.Random(0), 0, 0
    while kills < 100:
        runs += 1
        folder, patience = tmp_path / f"{runs}", longest
        while killed_after(rng.uniform(0, patience), lambda folder=folder: train(folder)):
            kills += 1
            patience *= 1.1  # a loaded machine may be slower than it was
            assert patience < 1000 * longest, "no progress from start to start"
        assert trained(folder) == trained(tmp_path / "whole"), runs
        assert not [*folder.rglob(".tmp*"), *folder.rglob(".old*")], runs


def trained(folder: Path) -> list[object]:
    """Weights and rows of a training, without times."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) | {"seconds": 0} for line in lines]
    return [read_json(folder / "summary.json"), *rows]
