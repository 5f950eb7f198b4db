"""The displacement beside the embedding: its truth, its head, and that the embedding stays as it was."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from invact_vla.config.command import parse_config
from invact_vla.core.errors import UserError
from latent_actions.encoder.displacement import displacement_loss, flow_displacement
from latent_actions.encoder.encoder import EncoderConfig, InvActEncoder
from latent_actions.encoder.inputs.augment import AugmentConfig
from latent_actions.encoder.inputs.batches import ActionConfig, ClipBatches, ClipTextConfig
from latent_actions.encoder.inputs.sampler import SamplerConfig
from latent_actions.encoder.inputs.sprites import SpriteConfig, sprite_table
from latent_actions.encoder.model import LossConfig
from latent_actions.encoder.train import EncoderTrainConfig, train

DEBUG = Path(__file__).parents[3] / "configs" / "encoder" / "encoder_debug.yaml"
SHAPE = {"frames": 4, "size": 24, "patch": 8, "width": 16, "depth": 3, "heads": 2, "embedding": 8}


def moving(dx: float, dy: float, frames: int = 6, size: int = 48) -> torch.Tensor:
    """A soft blob on a texture, dx, dy pixels further in each frame: (1, T, H, W, 3)."""
    y, x = np.mgrid[:size, :size].astype(float)
    ground = 0.3 + 0.05 * np.sin(x) * np.cos(1.3 * y)
    places = [(size / 2 + dx * t, size / 2 + dy * t) for t in range(frames)]
    pictures = [ground + 0.6 * np.exp(-((x - a) ** 2 + (y - b) ** 2) / 30) for a, b in places]
    return torch.tensor(np.stack(pictures), dtype=torch.float32)[None, ..., None].expand(
        -1, -1, -1, -1, 3
    )


def test_flow_says_where_the_moving_part_goes():
    for dx, dy in ((1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0)):
        way = flow_displacement(moving(dx, dy))[0].numpy()
        true = np.array([dx, -dy]) * 5 / 48  # up is positive
        assert way @ true / np.linalg.norm(true) ** 2 > 0.4
        assert abs(way[np.argmin(abs(true))]) < 0.2 * np.linalg.norm(true)
    assert abs(flow_displacement(moving(0, 0))).max() < 1e-3


def test_unknown_displacements_cost_nothing():
    said = torch.zeros(4, 3, requires_grad=True)
    true = torch.tensor([[0.1, 0, 0], [0, float("nan"), 0], [0.1, 0, 0], [float("nan")] * 3])
    loss = displacement_loss(said, true)
    loss.backward()
    assert loss.item() == pytest.approx(0.5 / 3)
    assert said.grad is not None and (said.grad[[1, 3]] == 0).all() and (said.grad[0, 0] < 0).all()
    assert displacement_loss(said, torch.full((4, 3), float("nan"))).item() == 0


def test_the_head_changes_nothing_else(tmp_path):
    clips = np.random.default_rng(0).integers(0, 256, (5, 4, 24, 24, 3), np.uint8)
    torch.manual_seed(0)
    plain = InvActEncoder(EncoderConfig(**SHAPE))
    after = torch.rand(1)
    torch.manual_seed(0)
    encoder = InvActEncoder(EncoderConfig(**SHAPE, displacement=3))
    assert torch.equal(torch.rand(1), after)
    np.testing.assert_array_equal(encoder.embed(clips), plain.embed(clips))
    both = encoder.embed(clips, vector="both")
    assert both.shape == (5, 11) and both.dtype == np.float32
    np.testing.assert_array_equal(both[:, :8], encoder.embed(clips))
    np.testing.assert_array_equal(both[:, 8:], encoder.embed(clips, vector="displacement"))
    assert np.ptp(both[:, 8:], axis=0).min() > 0
    encoder.save_pretrained(tmp_path)
    again = InvActEncoder.from_pretrained(tmp_path)
    np.testing.assert_array_equal(again.embed(clips, vector="both"), both)
    assert encoder.embed(clips[:0], vector="both").shape == (0, 11)


def test_an_encoder_without_the_head_says_so():
    encoder = InvActEncoder(EncoderConfig(**SHAPE))
    for vector in ("displacement", "both"):
        with pytest.raises(UserError, match=r"no displacement head.*loss\.displacement"):
            encoder.embed(np.zeros((1, 4, 24, 24, 3), np.uint8), vector=vector)


@pytest.fixture(scope="module")
def table():
    return sprite_table(
        SpriteConfig(moments=96, val_moments=24, train_scenes=4, val_scenes=2, size=24), 4
    )


def batches_of(table, **options) -> ClipBatches:
    return ClipBatches(
        table, table.rows_of("train"), size=24, sampler=SamplerConfig(),
        augmentation=AugmentConfig(min_temporal_crop=1), text=ClipTextConfig(), seed=0, **options,
    )  # fmt: skip


def test_batches_bring_the_hand_along_and_turn_it_with_the_clip(table):
    at = np.arange(4, dtype=np.float32)[None, :, None] * np.array([1, 0, -2], np.float32)
    known = replace(table, hand=np.broadcast_to(at, (len(table), 4, 3)))
    batch = batches_of(known, displacement="hand")(0, 16)
    assert batch.displacement is not None
    np.testing.assert_array_equal(batch.displacement, np.tile([3.0, 0.0, -6.0], (16, 1)))
    turning = ActionConfig(label="direction", time_reversed=1.0)
    made = batches_of(known, displacement="hand", action=turning)
    made.two_way[:] = True
    batch = made(0, 16)
    turned = batch.items.time_reversed
    assert turned is not None and turned.any()
    np.testing.assert_array_equal(batch.displacement[turned], np.tile([-3.0, 0, 6], (8, 1)))
    assert batches_of(known)(0, 16).displacement is None


def test_hands_must_be_known_to_be_learned(table):
    with pytest.raises(UserError, match=r"data\.hands true"):
        batches_of(table, displacement="hand")
    flows = batches_of(table, displacement="flow")(0, 16).displacement
    assert flows.shape == (16, 2) and flows.isfinite().all()


def test_the_head_learns_which_way():
    ways = [(dx, dy) for dx in (-1.0, 0.0, 1.0) for dy in (-1.0, 0.0, 1.0)]
    clips = torch.cat([moving(dx, dy, frames=4, size=24) for dx, dy in ways])
    true = torch.tensor([[dx, -dy] for dx, dy in ways]) * 0.1
    torch.manual_seed(0)
    encoder = InvActEncoder(EncoderConfig(**SHAPE, displacement=2))
    optimizer = torch.optim.Adam(encoder.parameters(), 3e-3)
    losses = []
    for _ in range(60):
        said = encoder(clips).displacement
        losses.append(displacement_loss(said, true))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.1 * losses[0]
    assert ((said - true).abs() < 0.06).all()


def test_training_makes_the_head(table, tmp_path):
    flags = ["--loss.displacement", "1", "--loss.displacement_target", "flow", "--loop.steps", "2"]
    config = parse_config(
        EncoderTrainConfig, ["--config_path", str(DEBUG), "--out", str(tmp_path), *flags]
    )
    encoder = train(config, table, tmp_path).encoder
    assert encoder.config.displacement == 2
    assert "displacement" in (tmp_path / "metrics.jsonl").read_text()
    assert encoder.embed(table.read(np.arange(3)), vector="both").shape == (3, 34)


def test_impossible_options_are_refused(tmp_path):
    with pytest.raises(ValueError, match="weights must be >= 0"):
        LossConfig(displacement=-1)
    with pytest.raises(ValueError, match="displacement in"):
        EncoderConfig(displacement=-1)
    with pytest.raises(UserError, match=r"loss\.displacement"):
        flags = ("--config_path", str(DEBUG), "--out", str(tmp_path), "--model.displacement", "3")
        parse_config(EncoderTrainConfig, list(flags))
