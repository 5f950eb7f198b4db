"""Resets on disk: a fresh process makes any reset alone, and a damaged file costs only time."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if importlib.util.find_spec("robosuite") is None:
    pytest.skip("needs the libero extra", allow_module_level=True)

from libero_eval.env import scene
from libero_eval.env.assets.pack import ProceduralPack
from libero_eval.env.scene import ResetStore, reset_key
from libero_eval.env.sim import LiberoSim


@pytest.fixture(scope="module")
def assets() -> Path:
    return ProceduralPack().build()


@pytest.fixture
def resets_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """An empty cache, and a list that grows with every reset that is run."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    run: list[int] = []
    original = scene.soft_reset

    def counted(env: Any, rebuilds: int = 1) -> int:
        run.append(rebuilds)
        return original(env, rebuilds)

    monkeypatch.setattr(scene, "soft_reset", counted)
    return run


def test_a_fresh_simulator_makes_a_reset_alone(assets: Path, resets_run: list[int]) -> None:
    first = LiberoSim("libero_10", 2, assets, settle_steps=1)
    first.reset(2)
    assert len(resets_run) == 3, "the first time, resets 0 and 1 come before"
    fresh = LiberoSim("libero_10", 2, assets, settle_steps=1)
    fresh.reset(2)
    assert len(resets_run) == 4
    assert fresh.state_hash() == first.state_hash()
    fresh.reset(3)
    assert len(resets_run) == 5, "the state after reset 2 is known"
    other_seed = LiberoSim("libero_10", 2, assets, settle_steps=1, reset_seed=1)
    other_seed.reset(1)
    assert len(resets_run) == 7, "another seed draws other numbers"
    assert reset_key(first.env, 0) != reset_key(first.env, 1)


@pytest.mark.parametrize("damage", ["cut", "flipped", "pickled", "empty"])
def test_a_damaged_file_is_run_again(
    assets: Path, resets_run: list[int], damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    sim = LiberoSim("libero_10", 2, assets, settle_steps=1)
    sim.reset(1)
    expected, run = sim.state_hash(), len(resets_run)
    store = ResetStore(sim.env, 0)
    whole = store.path.read_bytes()
    with np.load(store.path) as file:
        arrays = dict(file)
    if damage == "cut":
        store.path.write_bytes(whole[: len(whole) // 2])
    elif damage == "flipped":
        arrays["words"][1, 5] += 1
        np.savez(store.path, **arrays)
    elif damage == "pickled":
        arrays["words"] = np.array([{"a": 1}], dtype=object)
        np.savez(store.path, **arrays)
    else:
        store.path.write_bytes(b"")
    assert store.load() == [] and "damaged" in caplog.text
    again = LiberoSim("libero_10", 2, assets, settle_steps=1)
    again.reset(1)
    assert again.state_hash() == expected
    assert len(resets_run) == run + 2
    assert len(store.load()) == 3, "the file is whole again"
