"""Post-training that SIGKILL ends goes on in the next process, and ends with the same weights."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from invact_vla.core.files import read_json
from invact_vla.openvla.adapters.lora import LoraConfig
from invact_vla.openvla.config import OftHeadConfig, TextHeadConfig, TokensHeadConfig
from invact_vla.recipes import posttrain
from invact_vla.recipes.train import Batches
from tests.latent_actions.encoder.test_distributed import rows
from tests.paths import REPOSITORY
from tests.recipes.test_posttrain import config_of, home, same, weights

__all__ = ["home"]  # a fixture
KINDS = {
    "tokens": {"head": TokensHeadConfig()},
    "oft": {"head": OftHeadConfig(slots_per_action=1, learned_slots=True)},
    "text": {"head": TextHeadConfig(steps=50)},
    "lora": {"head": TokensHeadConfig(), "lora": LoraConfig(rank=2)},
}
KILLED_AT = 5  # checkpoints are written every 2 steps, the last of 6 steps is step 5
START = """
import sys
from pathlib import Path
from tests.recipes.test_posttrain_kills import killed_run
killed_run(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
"""


def killed_run(kind: str, home: Path, out: Path) -> None:
    """In a process of its own: train until the batch of a step is asked for, then SIGKILL."""
    whole = Batches.__call__

    def batch(self: Batches, step: int) -> object:
        if step == KILLED_AT:
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(self, step)

    Batches.__call__ = batch  # type: ignore[method-assign]
    posttrain.main(config_of(home, out, **KINDS[kind]))


@pytest.mark.slow
@pytest.mark.stress
@pytest.mark.parametrize("kind", KINDS)
def test_killed_in_mid_training_it_ends_with_the_same_weights(
    home: Path,
    tmp_path: Path,
    kind: str,
) -> None:
    whole = config_of(home, tmp_path / "whole", **KINDS[kind])
    torn = replace(whole, out=tmp_path / "torn")
    posttrain.main(whole)
    done = subprocess.run(
        [sys.executable, "-c", START, kind, str(home), str(torn.out)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    assert read_json(torn.out / "checkpoint/step.json") == {"step": 4}
    assert not (torn.out / "done.json").exists() and not (torn.out / "model").exists()
    posttrain.main(torn)
    assert rows(whole.out) == rows(torn.out)
    for name in ("adapter", "model") if kind == "lora" else ("model",):
        assert weights(torn.out, name) and same(weights(whole.out, name), weights(torn.out, name))
