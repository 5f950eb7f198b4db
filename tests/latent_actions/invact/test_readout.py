"""The narrow action token: which directions it keeps, and that embeddings stay where they were."""

from pathlib import Path

import numpy as np
import pytest
import torch

from invact_vla.errors import UserError
from invact_vla.training.cli import parse_config
from latent_actions.invact.encoder import EncoderConfig, InvActEncoder
from latent_actions.invact.readout import (
    ReadoutConfig,
    check_readout,
    discriminants,
    narrow_action,
)
from latent_actions.invact.sprites import SpriteConfig, sprite_table
from latent_actions.invact.train import EncoderTrainConfig, train

DEBUG = Path(__file__).parents[3] / "configs" / "encoder" / "encoder_debug.yaml"


def test_directions_that_tell_actions_apart_are_kept_and_those_of_the_place_are_not():
    rng = np.random.default_rng(0)
    action, place = rng.integers(4, size=900), rng.integers(5, size=900)
    basis = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    x = 5 + 0.1 * rng.normal(size=(900, 12))
    x += (
        rng.normal(size=(4, 3))[action] @ basis[:3]
        + 3 * rng.normal(size=(5, 4))[place] @ basis[3:7]
    )
    directions, mean = discriminants(x, action, 3, 1e-4)
    kept = (x - mean) @ directions

    def explained(values: np.ndarray, ids: np.ndarray) -> float:
        means = np.stack([values[ids == i].mean(axis=0) for i in range(ids.max() + 1)])
        return float(means[ids].var() / values.var())

    assert explained(kept, action) > 0.95 and explained(kept, place) < 0.05 < explained(x, place)
    within = kept - np.stack([kept[action == i].mean(axis=0) for i in range(4)])[action]
    np.testing.assert_allclose(within.T @ within / 900, np.eye(3), atol=0.2)


def encoder_of(width: int = 16) -> InvActEncoder:
    torch.manual_seed(0)
    shape = {"frames": 4, "size": 24, "patch": 8, "width": width, "depth": 3, "heads": 2}
    return InvActEncoder(EncoderConfig(**shape, embedding=8)).eval()


def table():
    return sprite_table(
        SpriteConfig(moments=96, val_moments=24, train_scenes=2, val_scenes=2, size=24), 4
    )


def test_nearly_all_directions_leave_the_embedding_where_it_was(tmp_path):
    encoder, clips = encoder_of(), table()
    rows = clips.rows_of("train")
    frames = clips.read(rows[:20])
    before = encoder.embed(frames)
    labels = np.unique(np.array(clips.verb)[rows], return_inverse=True)[1]
    narrow_action(encoder, clips, rows, labels, ReadoutConfig(width=15))
    # a layer norm's output has one direction less than its width
    np.testing.assert_allclose(encoder.embed(frames), before, atol=2e-3)
    narrowed = encoder_of()
    narrow_action(narrowed, clips, rows, labels, ReadoutConfig(width=2, clips=50))
    out = narrowed.evaluated(torch.from_numpy(frames))
    assert out.action.shape == (20, 2) and narrowed.config.action_width == 2
    narrowed.save_pretrained(tmp_path / "encoder")
    again = InvActEncoder.from_pretrained(tmp_path / "encoder")
    np.testing.assert_array_equal(again.embed(frames), narrowed.embed(frames))


def test_training_ends_with_the_readout(tmp_path):
    flags = ("--out", str(tmp_path), "--loop.steps", "1", "--readout.width", "3")
    config = parse_config(EncoderTrainConfig, ["--config_path", str(DEBUG), *flags])
    encoder = train(config, table(), tmp_path).encoder
    assert encoder.config.action_width == 3 and encoder.head.in_features == 3


def test_a_readout_that_cannot_be_fitted_is_refused_before_training():
    with pytest.raises(UserError, match="keeps all of an action token of 32"):
        check_readout(ReadoutConfig(width=32), 32, np.arange(2))
    with pytest.raises(UserError, match=r"one action only: give readout\.width 0"):
        check_readout(ReadoutConfig(width=4), 32, np.ones(2, int))
    check_readout(ReadoutConfig(), 32, np.ones(2, int))
    with pytest.raises(ValueError, match="shrinkage positive"):
        ReadoutConfig(shrinkage=0)
