"""The benchmark runs on a small shape and reports what it measured."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from latent_actions.encoder import bench
from latent_actions.encoder.bench import BenchEncoderConfig, main, training_step, vjepa2
from latent_actions.encoder.commit import CommitConfig
from latent_actions.encoder.encoder import InvActEncoder
from latent_actions.encoder.encoder_config import EncoderConfig
from latent_actions.encoder.routing import Routing

SMALL = EncoderConfig(
    frames=4, size=16, width=32, depth=2, heads=2, embedding=8, commit=CommitConfig(start=1)
)


@pytest.fixture
def bf16(monkeypatch):
    """As on a CPU that has bfloat16 products."""
    monkeypatch.setattr(bench, "multiplies_bf16", lambda device_type: True)


def test_without_bfloat16_products_fp32_alone_is_measured(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench, "multiplies_bf16", lambda device_type: False)
    assert main(BenchEncoderConfig(train=SMALL, embed=SMALL, embed_batch=3, repeats=1)) == 0
    printed = capsys.readouterr().out
    assert "fp32 InvAct" in printed and "bf16" not in printed


def test_the_report_names_every_side(tmp_path, capsys, bf16):
    out = tmp_path / "bench"
    config = BenchEncoderConfig(train=SMALL, embed=SMALL, embed_batch=3, repeats=2, out=out)
    assert main(config) == 0
    printed = capsys.readouterr().out
    for words in (
        "8 tokens",
        "fp32 plain ViT",
        "bf16 InvAct",
        "soft routing",
        "V-JEPA 2",
        "clips/s",
    ):
        assert words in printed
    found = json.loads((out / "bench.json").read_text())
    assert set(found["training"]) == {"fp32", "bf16"}
    sides = [*found["training"]["fp32"].values(), *found["embedding"].values()]
    assert len(sides) == 10
    assert all(len(s["clock"]) == len(s["processor"]) == 2 and min(s["clock"]) > 0 for s in sides)


def test_a_training_step_reaches_every_weight():
    encoder = InvActEncoder(SMALL)
    config = BenchEncoderConfig(train=SMALL)
    training_step(encoder, config, Routing(noise=True), "bf16")(0)
    assert all(p.grad is not None for p in encoder.parameters())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_reference_has_the_same_depth_width_and_tokens(precision):
    embed = vjepa2(SMALL, precision, np.zeros((2, 4, 16, 16, 3), np.uint8))
    assert embed(0).shape == (2, 32)


@pytest.mark.parametrize(
    "options", [{"repeats": 0}, {"train": EncoderConfig(commit=CommitConfig(estimator="none"))}]
)
def test_what_cannot_be_measured_is_refused(options):
    with pytest.raises(ValueError):
        BenchEncoderConfig(**options)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.8])
def test_the_action_token_of_the_embedding_has_a_trained_part_of_the_patches(share):
    shape = replace(SMALL, size=32, commit=CommitConfig(start=1, motion_prior=2.0))
    encoder, clips = InvActEncoder(shape).eval(), bench._clips(shape, 40)
    bench.give_action(encoder, clips, share)
    used = encoder(torch.from_numpy(clips)).assignments[0].used[..., 0]
    assert float(used.detach().mean()) == pytest.approx(share, abs=0.01)
