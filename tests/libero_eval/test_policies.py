"""Every registered policy keeps the Policy contract; the controls do what they say."""

from pathlib import Path

import numpy as np
import pytest

from invact_vla.errors import UserError
from invact_vla.schema import Observation
from invact_vla.training.cli import parse_config
from libero_eval.policies import (
    CheckpointConfig,
    NoopConfig,
    NoopPolicy,
    PolicyConfig,
    RandomConfig,
    RandomPolicy,
)
from libero_eval.rollout import RolloutConfig
from tests.paths import REPOSITORY

OBSERVATION = Observation(np.zeros((8, 8, 3), np.uint8), None, np.zeros(8, np.float32), "stay")


def test_members() -> None:
    known = {"checkpoint", "demonstrator", "noop", "random"}
    assert known <= set(PolicyConfig.get_known_choices())


def test_noop_holds_still_with_an_open_gripper() -> None:
    policy = NoopPolicy()
    policy.reset(0)
    values = policy.act(OBSERVATION).values
    assert len(values) == policy.chunk and np.all(values[:, :6] == 0) and np.all(values[:, 6] == -1)


def test_random_depends_on_the_seed_alone() -> None:
    first, second = RandomPolicy(4), RandomPolicy(4)
    first.reset(1)
    first.act(OBSERVATION)
    first.reset(7)
    second.reset(7)
    for _ in range(3):
        chunk = first.act(OBSERVATION).values
        assert np.array_equal(chunk, second.act(OBSERVATION).values)
        assert chunk.shape == (4, 7) and len(np.unique(chunk, axis=0)) == 1


def test_policies_parse_from_a_command_line_and_differ_in_hash() -> None:
    path = REPOSITORY / "configs" / "libero" / "rollout_debug.yaml"
    arguments = ["--config_path", str(path), "--policy.type", "random", "--policy.chunk", "2"]
    config = parse_config(RolloutConfig, arguments)
    assert config.policy == RandomConfig(chunk=2) and config.tasks == (0,)
    hashes = {NoopConfig().hash(), RandomConfig().hash(), config.policy.hash()}
    assert len(hashes) == 3
    assert NoopConfig().hash() == NoopConfig().hash()


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no checkpoint folder .*nowhere"):
        CheckpointConfig(folder=tmp_path / "nowhere").hash()
