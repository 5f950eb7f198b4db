"""LAQ and the labelers on a fake GPU: loss, collapse guard, evaluation, codes."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from latent_actions.encoder.encoder import InvActEncoder
from latent_actions.encoder.encoder_config import EncoderConfig
from latent_actions.labelers.features import RandomFeatureConfig
from latent_actions.labelers.guard.collapse import CollapseConfig, CollapseGuard
from latent_actions.labelers.guard.guarded import GuardedTask, after_step, guarded_loss
from latent_actions.labelers.invact import InvActLabeler
from latent_actions.labelers.labeler import full_batches
from latent_actions.labelers.lapa import BATCH, LapaLabeler
from latent_actions.labelers.lapo import LapoModel, LapoModelConfig
from latent_actions.labelers.laq.config import LaqConfig
from latent_actions.labelers.laq.evaluate import evaluate, save_grid
from latent_actions.labelers.laq.model import LatentActionQuantizer
from latent_actions.labelers.laq.task import LaqTask, batches
from latent_actions.labelers.quantizers import ProductQuantizerConfig
from latent_actions.labelers.trained import draw
from latent_actions.labelers.true_actions import (
    InverseDynamics,
    InverseDynamicsConfig,
    inverse_loss,
)
from latent_actions.labelers.univla.config import UnivlaConfig
from latent_actions.labelers.univla.labeler import TrainableUnivla
from latent_actions.labelers.vector_quantizers import VectorQuantization
from tests.fake_cuda import CUDA, build, fake_cuda

TINY = LaqConfig(
    dim=16, quant_dim=8, image_size=16, patch_size=2, spatial_depth=1, temporal_depth=1,
    dim_head=8, heads=2,
)  # fmt: skip
FRAMES = np.zeros((70, 2, 16, 16, 3), np.uint8)


@pytest.mark.parametrize("residual", [False, True])
def test_training_steps_and_the_guard(residual: bool) -> None:
    config = LaqConfig(**{**vars(TINY), "residual": residual})
    with fake_cuda():
        task = build(lambda: LaqTask(config, CollapseConfig(window=1), steps=9, seed=0))
        batch_at = batches(FRAMES, 8, 0)
        for step in range(2):  # step 0 seeds all codes, step 1 judges and re-seeds dead ones
            batch = batch_at(step)
            assert batch.dtype is torch.uint8 and batch.device.type == "cpu"
            loss, metrics = guarded_loss(task, batch.to(CUDA), step)
            assert loss.device == CUDA and {m.device for m in metrics.values()} == {CUDA}
            after_step(task, step, {})
        assert task.laq.vq.codebooks.device == task.guard.counts.device == CUDA


def test_the_guard_stops_a_collapse_with_a_diagnosis() -> None:
    with fake_cuda():
        guard = build(
            lambda: CollapseGuard(
                CollapseConfig(window=1, patience=1, min_perplexity=2), 4, 8, 9, 0
            )
        )
        codebook, outputs = torch.zeros(8, 3, device=CUDA), torch.zeros(16, 3, device=CUDA)
        guard.observe(torch.zeros(4, 4, dtype=torch.long, device=CUDA), 1)
        with pytest.raises(Exception, match="collapsed"):
            guard.act(1, codebook, outputs, torch.zeros(4, device=CUDA))


@pytest.mark.parametrize("lapa_compat", [False, True])
def test_evaluation_and_pictures(lapa_compat: bool, tmp_path: Path) -> None:
    with fake_cuda():
        model = build(
            lambda: LatentActionQuantizer(LaqConfig(**{**vars(TINY), "lapa_compat": lapa_compat}))
        )
        report = evaluate(model, FRAMES, 0)
        assert report.health.pairs == len(FRAMES)
        save_grid(model, FRAMES, tmp_path / "grid.png")
    assert (tmp_path / "grid.png").stat().st_size


@pytest.mark.parametrize("size", [16, 24])
def test_codes_of_the_lapa_labeler(size: int) -> None:
    with fake_cuda():
        labeler = LapaLabeler.__new__(LapaLabeler)
        labeler.model, labeler.code_length = build(lambda: LatentActionQuantizer(TINY)), 4
        codes = labeler.codes(np.zeros((70, 3, size, size, 3), np.uint8))
        assert codes.shape == (70, 4) and codes.dtype == np.int64


def test_codes_of_the_invact_labeler() -> None:
    shape = EncoderConfig(frames=4, size=16, width=16, depth=3, heads=2, embedding=8)
    quantizer = ProductQuantizerConfig().fit(np.random.default_rng(0).normal(size=(50, 8)))
    with fake_cuda():
        labeler = InvActLabeler(build(lambda: InvActEncoder(shape)), quantizer, "h")
        assert labeler.codes(np.zeros((70, 4, 16, 16, 3), np.uint8)).shape == (70, 4)


def test_batches_have_one_shape_off_the_cpu() -> None:
    """So that a GPU chooses the same kernels for a pair, whatever else is labeled."""
    items = np.arange(70)
    on_gpu = list(full_batches(items, BATCH, CUDA))
    assert [(len(batch), count) for batch, count in on_gpu] == [(64, 64), (64, 6)]
    assert np.array_equal(np.concatenate([b[:n] for b, n in on_gpu]), items)
    on_cpu = list(full_batches(items, BATCH, torch.device("cpu")))
    assert [(len(batch), count) for batch, count in on_cpu] == [(64, 64), (6, 6)]


@pytest.mark.parametrize("kind", get_args(VectorQuantization))
def test_lapo_trains_and_labels_with_every_quantizer(kind: VectorQuantization) -> None:
    config = LapoModelConfig(size=16, width=4, latent_dim=8, quantizer=kind)
    with fake_cuda():
        model = build(lambda: LapoModel(config))
        task = build(lambda: GuardedTask(model, CollapseConfig(window=1), 4, 8, 9, 0))
        batch_at = draw({"frames": FRAMES}, 8, 0)
        for step in range(2):
            batch = {name: value.to(CUDA) for name, value in batch_at(step).items()}
            loss, metrics = guarded_loss(task, batch, step)
            assert loss.device == CUDA and {m.device for m in metrics.values()} == {CUDA}
            after_step(task, step, {})
        assert model.eval().codes(
            torch.zeros(3, 2, 16, 16, 3, dtype=torch.uint8, device=CUDA)
        ).shape == (3, 4)


@pytest.mark.parametrize("stage", [1, 2])
def test_univla_trains_and_labels(stage: int) -> None:
    config = UnivlaConfig(
        model_dim=16, latent_dim=8, num_latents=8, enc_blocks=1, dec_blocks=1, num_heads=2, dino_dim=12,
        text_dim=6, stage=stage,
    )  # fmt: skip
    with fake_cuda():
        model = build(lambda: TrainableUnivla(config))
        task = build(lambda: GuardedTask(model, CollapseConfig(window=1), 4, 8, 9, 0))
        batch = {
            "features": torch.randn(4, 2, 5, 12, device=CUDA), "change": torch.ones(4, device=CUDA)
        }  # fmt: skip
        if stage == 1:
            seen = torch.ones(4, 3, dtype=torch.bool, device=CUDA)
            batch |= {"text": torch.randn(4, 3, 6, device=CUDA), "seen": seen}
        for step in range(2):
            assert guarded_loss(task, batch, step)[0].device == CUDA
            after_step(task, step, {})
        assert model.codes(batch["features"]).device == CUDA


def test_inverse_dynamics_trains_and_names_actions() -> None:
    with fake_cuda():
        model = build(lambda: InverseDynamics(InverseDynamicsConfig(size=16, width=4)))
        batch = {
            "frames": torch.zeros(4, 2, 16, 16, 3, dtype=torch.uint8, device=CUDA),
            "actions": torch.zeros(4, 7, device=CUDA),
        }
        assert inverse_loss(model, batch, 0)[0].device == CUDA
        assert model.actions(FRAMES).shape == (70, 7)


def test_random_features() -> None:
    with fake_cuda():
        features = RandomFeatureConfig(width=8, size=16, side=2).build(CUDA)
        assert features(FRAMES).shape == (70, 2, 4, 8)
