"""The displacement beside the embedding: its truth, its head, and that the embedding stays as it was."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from invact_vla.config.command import parse_config
from invact_vla.core.errors import UserError
from latent_actions.encoder.displacement import displacement_loss, flow_displacement
from latent_actions.encoder.displacement_fit import (
    DisplacementConfig,
    displacement_r2,
    fit_displacement,
)
from latent_actions.encoder.encoder import InvActEncoder
from latent_actions.encoder.encoder_config import EncoderConfig
from latent_actions.encoder.inputs.augment import AugmentConfig
from latent_actions.encoder.inputs.sprites import SpriteConfig, sprite_table
from latent_actions.encoder.train import EncoderTrainConfig, train

DEBUG = Path(__file__).parents[3] / "configs" / "encoder" / "encoder_debug.yaml"
LITTLE = AugmentConfig(crop_scale=(0.7, 1.1), rotation=8.0, aspect_jitter=0.1)
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


def test_embedding_and_displacement_beside_each_other(tmp_path):
    clips = np.random.default_rng(0).integers(0, 256, (5, 4, 24, 24, 3), np.uint8)
    torch.manual_seed(0)
    encoder = InvActEncoder(EncoderConfig(**SHAPE, displacement=3))
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
        with pytest.raises(UserError, match=r"no displacement head.*displacement\.target"):
            encoder.embed(np.zeros((1, 4, 24, 24, 3), np.uint8), vector=vector)


@pytest.fixture(scope="module")
def table():
    return sprite_table(
        SpriteConfig(moments=96, val_moments=24, train_scenes=4, val_scenes=2, size=24), 4
    )


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


def with_hands(table, known=None):
    """The table with hands that go as sprites do: right, left, up or down by 0.2 m, or not at all."""
    ways = {"right": (1, 0, 0), "left": (-1, 0, 0), "up": (0, 0, 1), "down": (0, 0, -1)}
    way = np.array([ways.get(verb, (0, 0, 0)) for verb in table.verb], np.float32)
    hand = 0.2 * np.linspace(0, 1, 4, dtype=np.float32)[None, :, None] * way[:, None]
    if known is not None:
        hand[known:] = np.nan
    return replace(table, hand=hand)


def fitted(table, target, **options) -> InvActEncoder:
    torch.manual_seed(0)
    encoder = InvActEncoder(EncoderConfig(**SHAPE)).eval()
    config = DisplacementConfig(target=target, min_temporal_crop=1, **options)
    fit_displacement(encoder, table, table.rows_of("train"), config, LITTLE)
    return encoder


def test_the_head_is_fitted_and_the_embedding_stays(table):
    clips, rows = with_hands(table), table.rows_of("train")
    torch.manual_seed(0)
    plain, after = InvActEncoder(EncoderConfig(**SHAPE)).eval(), torch.rand(1)
    encoder = fitted(clips, "hand")
    assert torch.equal(torch.rand(1), after)
    np.testing.assert_array_equal(encoder.embed(clips.read(rows)), plain.embed(clips.read(rows)))
    right, forward, up = displacement_r2(encoder, clips, rows, "hand")
    assert right > 0.4 and up > 0.4 and forward <= 1  # few sprites and random patches: seen clips
    again = fitted(clips, "hand")
    for one, two in zip(encoder.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)


def test_clips_without_poses_are_left_out(table):
    half = len(table.rows_of("train")) // 2
    encoder = fitted(with_hands(table, known=half), "hand", steps=20)
    assert all(p.isfinite().all() for p in encoder.parameters())


def test_flow_needs_no_hands(table):
    encoder = fitted(table, "flow")
    assert encoder.config.displacement == 2
    assert min(displacement_r2(encoder, table, table.rows_of("train"), "flow")) > 0.2


def debug(tmp_path, *flags) -> EncoderTrainConfig:
    shared = ["--config_path", str(DEBUG), "--out", str(tmp_path), "--loop.steps", "1"]
    return parse_config(EncoderTrainConfig, [*shared, *flags])


def test_training_ends_with_the_head(table, tmp_path):
    flags = ("--displacement.target", "hand", "--displacement.steps", "2")
    with pytest.raises(UserError, match=r"data\.hands true"):
        train(debug(tmp_path, *flags), table, tmp_path)
    with pytest.raises(UserError, match=r"needs 16 training clips.*got 3 of"):
        train(debug(tmp_path, *flags), with_hands(table, known=3), tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists()  # said before the training
    encoder = train(debug(tmp_path, *flags), with_hands(table), tmp_path).encoder
    assert encoder.embed(table.read(np.arange(3)), vector="both").shape == (3, 35)


def test_impossible_options_are_refused(tmp_path):
    with pytest.raises(ValueError, match="must be positive"):
        DisplacementConfig(steps=0)
    with pytest.raises(ValueError, match=r"min_temporal_crop must be in \(0, 1\]"):
        DisplacementConfig(min_temporal_crop=0)
    with pytest.raises(ValueError, match="displacement in"):
        EncoderConfig(displacement=-1)
    with pytest.raises(UserError, match=r"displacement\.target"):
        debug(tmp_path, "--model.displacement", "3")
