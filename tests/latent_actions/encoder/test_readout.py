"""The narrow action token: the directions it keeps, and embeddings that stay where they were."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from invact_vla.config.command import parse_config
from invact_vla.core.errors import UserError
from latent_actions.encoder.displacement import DisplacementHead
from latent_actions.encoder.encoder import InvActEncoder
from latent_actions.encoder.encoder_config import EncoderConfig
from latent_actions.encoder.inputs.language import LanguageHead
from latent_actions.encoder.inputs.sprites import SpriteConfig, sprite_table
from latent_actions.encoder.model import InvActModel, LossConfig
from latent_actions.encoder.readout import ReadoutConfig, principal, project_action
from latent_actions.encoder.start import average, start_from
from latent_actions.encoder.train import EncoderTrainConfig, train
from latent_actions.train_encoder import main

DEBUG = Path(__file__).parents[3] / "configs" / "encoder" / "encoder_debug.yaml"


def test_principal_directions_are_those_of_the_largest_variance():
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    x = 5 + rng.normal(size=(4000, 6)) * [3.0, 0.1, 2.0, 0.1, 0.1, 0.1] @ basis.T
    mean, directions, kept = principal(torch.from_numpy(x), 2)
    np.testing.assert_allclose(mean, x.mean(axis=0))
    np.testing.assert_allclose(abs(directions.numpy() @ basis[:, [0, 2]]), np.eye(2), atol=0.02)
    assert kept == pytest.approx(13 / 13.04, abs=1e-3)


def encoder_of(width: int = 16) -> InvActEncoder:
    torch.manual_seed(0)
    shape = {"frames": 4, "size": 24, "patch": 8, "width": width, "depth": 3, "heads": 2}
    return InvActEncoder(EncoderConfig(**shape, embedding=8)).eval()


def table():
    return sprite_table(
        SpriteConfig(moments=96, val_moments=24, train_scenes=2, val_scenes=2, size=24), 4
    )


def test_embeddings_are_projected_on_what_is_kept(tmp_path):
    encoder, clips = encoder_of(), table()
    rows = clips.rows_of("train")
    frames = torch.from_numpy(clips.read(rows))
    with torch.no_grad():
        whole = encoder.head(encoder.evaluated(frames).token)
        project_action(encoder, clips, rows, ReadoutConfig(width=3))
        out = encoder.evaluated(frames)
    mean, directions, _ = principal(whole.double(), 3)
    projected = (whole - mean) @ directions.T @ directions + mean
    assert out.action.shape == (len(rows), 3) and encoder.config.action_dim == 3
    np.testing.assert_allclose(out.action, (whole - mean) @ directions.T, atol=1e-5)
    np.testing.assert_allclose(
        out.embedding, torch.nn.functional.normalize(projected, dim=-1), atol=1e-5
    )
    encoder.save_pretrained(tmp_path / "encoder")
    again = InvActEncoder.from_pretrained(tmp_path / "encoder")
    np.testing.assert_array_equal(again.embed(frames.numpy()), encoder.embed(frames.numpy()))


def test_all_directions_leave_the_embedding_where_it_was():
    encoder, clips = encoder_of(), table()
    rows = clips.rows_of("train")
    before = encoder.embed(clips.read(rows[:20]))
    project_action(encoder, clips, rows, ReadoutConfig(width=8, clips=50))
    np.testing.assert_allclose(encoder.embed(clips.read(rows[:20])), before, atol=1e-5)


def test_training_ends_with_the_readout(tmp_path):
    flags = ("--out", str(tmp_path), "--loop.steps", "1", "--readout.width", "3")
    config = parse_config(EncoderTrainConfig, ["--config_path", str(DEBUG), *flags])
    encoder = train(config, table(), tmp_path).encoder
    assert encoder.config.action_dim == 3 and encoder.head.in_features == 3


def test_a_readout_that_keeps_all_is_refused(tmp_path):
    flags = ("--config_path", str(DEBUG), "--out", str(tmp_path), "--readout.width", "32")
    with pytest.raises(UserError, match=r"readout\.width 32 keeps all of an action token of 32"):
        parse_config(EncoderTrainConfig, list(flags))
    with pytest.raises(ValueError, match="clips >= 2"):
        ReadoutConfig(clips=1)


def test_training_starts_where_another_ended(tmp_path):
    clips, trained = table(), encoder_of()
    project_action(trained, clips, clips.rows_of("train"), ReadoutConfig(width=3))
    trained.set_displacement(DisplacementHead(math.prod(trained.grid), trained.config.width, 3))
    trained.save_pretrained(tmp_path / "run" / "encoder")
    words = LanguageHead(["left", "right"], 8)
    words.save_pretrained(tmp_path / "run" / "language")
    streams = ("rgb", "steady")  # as wide as rgb, diff
    shape = replace(trained.config, action_dim=0, displacement=0, streams=streams)
    model = InvActModel(shape, LossConfig(scene=0.1), ("left", "right", "up"))
    scene = model.scene.weight.clone()
    start_from(model, tmp_path / "run")
    model.encoder.embedder.streams = trained.config.streams
    frames = clips.read(np.arange(6))
    np.testing.assert_allclose(model.encoder.embed(frames), trained.embed(frames), atol=1e-5)
    assert torch.equal(model.language.project.weight, words.project.weight)
    assert torch.equal(model.scene.weight, scene)
    start_from(model, tmp_path / "run" / "encoder")  # the bare folder too
    own = InvActModel(shape, LossConfig(scene=0.1), ("left", "right", "up"))
    mixed = {n: 0.25 * v for n, v in own.encoder.state_dict().items()}
    average(own, model, 0.75)
    for name, value in own.encoder.state_dict().items():
        torch.testing.assert_close(value, mixed[name] + 0.75 * model.encoder.state_dict()[name])
    other = InvActModel(replace(shape, width=32), LossConfig(), ("left",))
    with pytest.raises(UserError, match="does not fit `model`"):
        start_from(other, tmp_path / "run")


@pytest.mark.slow
def test_a_run_that_starts_from_another_begins_below_one_that_does_not(tmp_path):
    debug = ["--config_path", str(DEBUG), "--routing.hard_after", "0"]
    first = main(parse_config(EncoderTrainConfig, [*debug, "--out", str(tmp_path / "first")]))
    losses = {}
    for name, args in (("from", ["--start", str(first)]), ("anew", [])):
        more = ["--out", str(tmp_path / name), "--loop.steps", "2", "--loop.log_every", "1"]
        run = main(parse_config(EncoderTrainConfig, [*debug, *more, *args]))
        losses[name] = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])["contrast"]
    assert losses["from"] < 0.9 * losses["anew"]
    with pytest.raises(UserError, match=r"start_weight must be in \[0, 1\)"):
        parse_config(EncoderTrainConfig, [*debug, "--out", str(tmp_path), "--start_weight", "0.5"])
