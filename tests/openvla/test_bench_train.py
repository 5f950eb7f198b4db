"""The training benchmark: both sides do the same."""

import json
from pathlib import Path

import pytest

from invact_vla.openvla.bench.train import BenchTrainConfig, main
from tests.paths import REPOSITORY


def test_both_sides_do_the_same(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = BenchTrainConfig(
        model=REPOSITORY / "configs/vla/model_debug.yaml", batch_size=4, rounds=3, device="cpu",
        out=tmp_path / "bench",
    )  # fmt: skip
    assert main(config) == 0
    found = json.loads((tmp_path / "bench/bench.json").read_text())
    assert found["loss_difference"] < 0.02 and len(found["seconds"]["plain"]) == 3
    assert "times faster" in capsys.readouterr().out
