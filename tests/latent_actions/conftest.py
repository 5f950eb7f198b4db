"""A tiny synthetic tree, rendered once a session."""

from dataclasses import replace
from pathlib import Path

import pytest

from latent_actions.synthetic.generate import SynthConfig, main

TINY = SynthConfig(
    out=Path("unset"), workers=1, n_train_takes=2, n_val_takes=1, actions_per_take=3,
    n_train_scenes=2, n_val_scenes=1, ssv2_train=4, ssv2_val=1, ssv2_test=1, size=32, fps=8.0,
)  # fmt: skip


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with egoexo4d/, ssv2/ and truth/."""
    return main(replace(TINY, out=tmp_path_factory.mktemp("synth")))
