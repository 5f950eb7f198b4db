"""Deliberately broken runs are stopped, or marked with the right diagnosis; healthy ones are not."""

from pathlib import Path

import numpy as np
import pytest
import torch

from invact_vla.core.errors import UserError
from invact_vla.core.files import read_json
from invact_vla.training.loop import LoopConfig
from latent_actions.encoder.inputs.sprites import SpriteConfig
from latent_actions.labelers.cross_view import MvpLamConfig
from latent_actions.labelers.features import RandomFeatureConfig
from latent_actions.labelers.guard.collapse import CollapseConfig, pair_change, refuse_static
from latent_actions.labelers.guard.guarded import ModelReport
from latent_actions.labelers.labeler import LabelerConfig, TrainingFrames, TrainingPairs
from latent_actions.labelers.lapo import LapoConfig, LapoModelConfig
from latent_actions.labelers.laq.evaluate import evaluate
from latent_actions.labelers.laq.model import LatentActionQuantizer
from latent_actions.labelers.laq.train import LaqTrainConfig, train
from latent_actions.labelers.pairs import PairConfig
from latent_actions.labelers.trained import FitConfig
from latent_actions.labelers.true_actions import InverseDynamicsConfig, VptConfig
from latent_actions.labelers.univla.config import UnivlaConfig
from latent_actions.labelers.univla.labeler import UnivlaLabelerConfig
from latent_actions.video.sources import Ssv2Source
from tests.latent_actions.labelers.test_codebook_usage import (
    TINY,
    guard,
    moving_squares,
    various_codes,
)
from tests.latent_actions.labelers.test_labelers import records, write_actions


def trained(folder: Path, rate: float, steps: int = 150) -> ModelReport:
    loop = LoopConfig(
        steps=steps,
        batch_size=32,
        learning_rate=rate,
        weight_decay=0.0,
        beta2=0.99,
        warmup_steps=10,
    )
    config = LaqTrainConfig(
        pairs=PairConfig(source=Ssv2Source(), frames=2), model=TINY, loop=loop,
        guard=CollapseConfig(window=10, patience=4),
    )  # fmt: skip
    folder.mkdir()
    task = train(config, moving_squares(512), folder, "cpu")
    return evaluate(task.laq, moving_squares(200, seed=1), 0)


@pytest.mark.slow
def test_a_healthy_run_has_no_problems(tmp_path: Path) -> None:
    report = trained(tmp_path / "run", 3e-3)
    assert report.problems() == []
    assert report.r2_true > report.r2_zero and report.to_json()["problems"] == []


@pytest.mark.slow
def test_a_rate_100_times_too_high_is_stopped_or_marked(tmp_path: Path) -> None:
    try:
        said = " ".join(trained(tmp_path / "run", 0.3).problems())
    except UserError as error:
        said = str(error)
    assert "learning_rate" in said


def test_a_static_video_is_stopped_before_training() -> None:
    still, moving = moving_squares(64, still=True), moving_squares(64)
    assert pair_change(still).max() == 0 < pair_change(moving).mean()
    refuse_static(moving, 0.9)
    refuse_static(np.concatenate([still, moving]), 0.9)
    with pytest.raises(
        UserError, match=r"100 % of 64 training pairs hardly change: .*raise horizon_s"
    ):
        refuse_static(still, 0.9)


def test_other_trained_labelers_refuse_a_static_video_too(tmp_path: Path) -> None:
    def training():
        yield TrainingPairs(moving_squares(24, still=True), records())

    config = LapoConfig(model=LapoModelConfig(size=16, width=4), training=FitConfig())
    with pytest.raises(UserError, match="nearly static"):
        config.build(tmp_path, training)


def test_static_pairs_in_the_middle_of_a_training_stop_it() -> None:
    watch, codes = guard(), various_codes()
    still, moving = torch.zeros(16), torch.full((16,), 0.2)
    with pytest.raises(
        UserError, match=r"100 % of the pairs at step 29 hardly change.*2 windows of 5"
    ):
        for step in range(40):
            watch.observe(codes, step)
            change = moving if step < 20 else still
            watch.act(step, torch.randn(8, 3), torch.randn(64, 3), change)


def squares(count: int = 512) -> TrainingFrames:
    """Training pairs of moving squares."""

    def training():
        frames = moving_squares(count)
        yield TrainingPairs(frames, [records(40)[i % 40] for i in range(count)])

    return training


def labelers(rate: float, steps: int, folder: Path) -> dict[str, LabelerConfig]:
    """Small labelers that train a network, and how. folder: for true actions."""
    loop = LoopConfig(
        steps=steps, batch_size=64, learning_rate=rate, weight_decay=0.0, warmup_steps=20
    )
    fit = FitConfig(loop=loop, guard=CollapseConfig(window=10, patience=4))
    model = LapoModelConfig(size=16, width=8)
    views = SpriteConfig(moments=200, val_moments=8, size=16)
    lam = UnivlaConfig(
        model_dim=32, latent_dim=4, num_latents=8, context_latents=8, enc_blocks=1, dec_blocks=1,
        num_heads=2, text_dim=16, whiten=True,
    )  # fmt: skip
    features = RandomFeatureConfig(width=32, size=16, side=4)
    truth = write_actions(folder / "truth")
    vpt = VptConfig(actions=truth, training=fit, model=InverseDynamicsConfig(size=16, width=8))
    return {
        "vpt": vpt,
        "lapo": LapoConfig(model=model, training=fit),
        "mvp_lam": MvpLamConfig(model=model, training=fit, views=views),
        "univla": UnivlaLabelerConfig(model=lam, features=features, stage_1=fit, stage_2=fit),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lapo", "mvp_lam", "univla"])
def test_no_position_of_a_trained_labeler_collapses_or_repeats_another(
    name: str, tmp_path: Path
) -> None:
    labelers(3e-3, 300, tmp_path)[name].build(tmp_path, squares())
    for path in tmp_path.glob("trained_*.json"):
        report = read_json(path)
        assert report["problems"] == [], path.name
        assert report["health"]["joint_entropy_bits"] > 6, path.name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lapo", "univla", "vpt"])
def test_a_rate_100_times_too_high_is_named_for_every_labeler(name: str, tmp_path: Path) -> None:
    try:
        labelers(0.3, 300, tmp_path)[name].build(tmp_path, squares())
        reports = [read_json(path) for path in tmp_path.glob("trained_*.json")]
        said = " ".join(problem for report in reports for problem in report["problems"])
    except UserError as error:
        said = str(error)
    assert "learning_rate" in said


def test_codes_that_reconstruct_no_better_than_zero_codes_are_named() -> None:
    torch.manual_seed(0)
    model = LatentActionQuantizer(TINY).eval()
    torch.nn.init.normal_(model.to_pixels_first_frame[0].weight, std=0.1)
    for layer in model.dec_spatial_transformer.layers:
        torch.nn.init.zeros_(layer[2].to_out.weight)  # type: ignore[index]
    report = evaluate(model, moving_squares(64), 0)
    assert report.r2_true == pytest.approx(report.r2_zero, abs=1e-6)
    assert any("no better than zero codes" in problem for problem in report.problems())
    assert any("worse than the first frame" in problem for problem in report.problems())


def test_static_held_out_pairs_give_no_number_but_a_diagnosis() -> None:
    torch.manual_seed(0)
    report = evaluate(LatentActionQuantizer(TINY).eval(), moving_squares(64, still=True), 0)
    assert np.isnan(report.r2_true) and report.static_fraction == 1
    assert "nearly static" in report.problems()[0]
    assert report.to_json()["r2_true"] is None
