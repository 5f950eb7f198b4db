"""Training from config to products: learns, resumes exactly, evaluates, refuses nonsense."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from invact_vla.config.command import parse_config
from invact_vla.core.errors import UserError
from invact_vla.training import device as devices
from invact_vla.training.loop import LoopConfig
from latent_actions.encoder.encoder import InvActEncoder
from latent_actions.encoder.inputs import batches
from latent_actions.encoder.inputs.sprites import SpriteConfig, sprite_table
from latent_actions.encoder.losses import ContrastConfig
from latent_actions.encoder.model_card import model_card
from latent_actions.encoder.train import EncoderTrainConfig, RoutingSchedule, train
from latent_actions.encoder.validate import check_clips, unseen_verbs
from latent_actions.retrieval import evaluate
from latent_actions.retrieval.encoders import evaluated
from latent_actions.train_encoder import main
from tests.paths import REPOSITORY

CONFIGS = REPOSITORY / "configs" / "encoder"


def debug(out: Path, *args: str) -> EncoderTrainConfig:
    return parse_config(
        EncoderTrainConfig,
        ["--config_path", str(CONFIGS / "encoder_debug.yaml"), "--out", str(out), *args],
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return main(debug(tmp_path_factory.mktemp("encoder") / "run"))


@pytest.mark.parametrize(
    "name", ["encoder_debug", "encoder_cpu", "encoder_base", "encoder_real_cpu"]
)
def test_configs_parse(name, tmp_path):
    config = parse_config(
        EncoderTrainConfig, ["--config_path", str(CONFIGS / f"{name}.yaml"), "--out", str(tmp_path)]
    )
    assert config.loop.batch_size % 8 == 0


def test_products(run):
    encoder = InvActEncoder.from_pretrained(run / "encoder")
    shape = (2, encoder.config.frames, encoder.config.size, encoder.config.size, 3)
    assert encoder.embed(np.zeros(shape, np.uint8)).shape == (2, encoder.config.embedding)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {
        "contrast",
        "action_fraction",
        "register_fraction_1",
        "switch_rate",
        "verb_class",
    } <= rows[-1].keys()
    result = json.loads((run / "retrieval.json").read_text())
    assert set(result["encoders"]) == {"encoder", "random weights", "pixels"}
    assert {"p_at_10", "low", "high", "n"} == result["encoders"]["encoder"]["cross_scene"].keys()
    assert result["levels"]["scene"]["chance"] > 0
    with Image.open(run / "committed.png") as picture:
        assert picture.width > 100


def test_a_finished_run_is_skipped_and_another_config_refused(run):
    before = (run / "retrieval.json").stat().st_mtime_ns
    main(debug(run))
    assert (run / "retrieval.json").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="another config"):
        main(debug(run, "--seed", "1"))


def test_an_interrupted_training_ends_with_the_same_weights(tmp_path, monkeypatch):
    config = debug(tmp_path, "--loop.checkpoint_every", "2")
    table = config.data.table(config.model.frames, tmp_path, 1)
    (tmp_path / "whole").mkdir()
    (tmp_path / "torn").mkdir()
    whole = train(config, table, tmp_path / "whole").state_dict()
    draw = batches.ClipBatches.__call__

    def dies(self, step, size):
        if step == 5:
            raise KeyboardInterrupt
        return draw(self, step, size)

    monkeypatch.setattr(batches.ClipBatches, "__call__", dies)
    with pytest.raises(KeyboardInterrupt):
        train(config, table, tmp_path / "torn")
    monkeypatch.setattr(batches.ClipBatches, "__call__", draw)
    torn = train(config, table, tmp_path / "torn").state_dict()
    assert all(torch.equal(whole[name], torn[name]) for name in whole)


def test_diagnostics_of_the_routing_are_logged(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    names = {"routing_entropy", "switch_rate", "action_motion", "register_motion", "temperature",
             "action_fraction_block_0", "action_fraction_block_1", "skipped_anchors"}  # fmt: skip
    assert names <= rows[-1].keys()
    shares = [
        v
        for n, v in rows[-1].items()
        if n.startswith("register_fraction") or n == "action_fraction"
    ]
    assert sum(shares) == pytest.approx(1, abs=1e-5)


def test_gradient_checkpointing_and_bf16(tmp_path, monkeypatch):
    """Recomputed blocks give the same weights, noise included; bf16 stays close to fp32."""
    monkeypatch.setattr(devices, "multiplies_bf16", lambda device_type: True)
    options = ("--routing.hard_after", "0.3")
    config = debug(tmp_path, *options)
    table = config.data.table(config.model.frames, tmp_path, 1)
    states = {}
    for name, changed in {
        "plain": config,
        "recomputed": replace(config, gradient_checkpointing=True),
        "bf16": replace(config, loop=replace(config.loop, precision="bf16")),
    }.items():
        (tmp_path / name).mkdir()
        states[name] = train(changed, table, tmp_path / name).state_dict()
    assert states["plain"].keys() == states["recomputed"].keys()
    for name, value in states["plain"].items():
        torch.testing.assert_close(states["recomputed"][name], value, rtol=0, atol=1e-6)
    losses = [
        json.loads((tmp_path / n / "metrics.jsonl").read_text().splitlines()[0])["loss"]
        for n in ("plain", "bf16")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=0.05) and losses[0] != losses[1]


def test_a_loss_that_breaks_names_step_causes_and_checkpoint(tmp_path, monkeypatch):
    config = debug(tmp_path, "--loop.checkpoint_every", "2")
    table = config.data.table(config.model.frames, tmp_path, 1)
    draw = batches.ClipBatches.__call__

    def breaks(self, step, size):
        batch = draw(self, step, size)
        if step == 5:
            batch.pixels[0] = float("nan")
        return batch

    monkeypatch.setattr(batches.ClipBatches, "__call__", breaks)
    with pytest.raises(UserError, match=r"contrast.* at step 5 .*learning rate.*step 4 stays"):
        train(config, table, tmp_path)
    assert json.loads((tmp_path / "checkpoint/step.json").read_text())["step"] == 4
    monkeypatch.setattr(batches.ClipBatches, "__call__", draw)
    assert all(
        torch.isfinite(v).all() for v in train(config, table, tmp_path).state_dict().values()
    )


def small_table(**changes):
    table = sprite_table(
        SpriteConfig(moments=96, val_moments=24, train_scenes=2, val_scenes=2, size=24), 4
    )
    return replace(table, **{name: change(table) for name, change in changes.items()})


def test_one_class_only_is_refused_unless_the_loss_needs_no_labels(tmp_path):
    table = small_table(verb=lambda t: ("left",) * len(t))
    with pytest.raises(UserError, match=r"one action, 'left'.*infonce_pair"):
        check_clips(table, ContrastConfig())
    check_clips(table, ContrastConfig(kind="infonce_pair"))
    config = debug(tmp_path, "--loss.contrast.kind", "infonce_pair", "--sampler.kind", "random")
    model = train(config, table, tmp_path)
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())


def test_two_scenes_are_enough(tmp_path):
    table = small_table()
    check_clips(table, ContrastConfig())
    train(debug(tmp_path), table, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["skipped_anchors"] < 1


def test_verbs_unseen_in_training_are_scored_and_named(tmp_path, caplog):
    def rename(table):
        pairs = zip(table.verb, table.split, strict=True)
        return tuple("wave" if v == "left" and s == "val" else v for v, s in pairs)

    table = small_table(verb=rename)
    assert unseen_verbs(table) == ["wave"]
    check_clips(table, ContrastConfig())
    assert "unseen in training (wave)" in caplog.text
    config = debug(tmp_path)
    model = train(config, table, tmp_path)
    assert "wave" not in model.language.verbs
    result = evaluate.evaluate([evaluated(model.encoder, "encoder")], table, "val")
    assert result["encoders"]["encoder"]["cross_scene"]["n"] == 24
    everything = {**result, "unseen_verbs": unseen_verbs(table)}
    assert "unseen in training: wave" in model_card(config, table, everything, 1000)


def test_verbs_of_one_scene_each_are_named_before_training(caplog):
    check_clips(small_table(), ContrastConfig())
    assert "two scenes" not in caplog.text
    check_clips(small_table(verb=lambda t: t.scene), ContrastConfig())
    assert "no validation verb is shown in two scenes" in caplog.text


def test_a_split_without_clips_is_refused():
    table = small_table(split=lambda t: ("train",) * len(t))
    with pytest.raises(UserError, match="both splits"):
        check_clips(table, ContrastConfig())


def test_rows_harden_late():
    schedule = RoutingSchedule(
        hard_after=0.5, temperature_start=1.0, temperature_end=0.4, anneal=0.25
    )
    assert not schedule.at(49, 100).hard
    assert schedule.at(50, 100).hard and schedule.at(50, 100).temperature == pytest.approx(1.0)
    assert schedule.at(99, 100).temperature == pytest.approx(0.4)
    assert schedule.at(49, 100).temperature == 1


def test_soft_rows_can_sharpen_before_they_harden():
    schedule = RoutingSchedule(hard_after=0.5, sharpen_to=0.2)
    assert [schedule.at(step, 100).temperature for step in (0, 25)] == pytest.approx([1.0, 0.6])
    assert not schedule.at(49, 100).hard and schedule.at(49, 100).temperature < 0.22
    assert RoutingSchedule(hard_after=0.0).at(0, 100).hard


def test_it_learns_sprites_across_scenes(tmp_path):
    options = {"data.moments": 400, "data.val_moments": 96, "data.radius": 0.35, "data.travel": 0.6}
    options |= {"model.streams": "[diff]", "model.tubelet": 4}
    args = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    loop = LoopConfig(steps=120, batch_size=64, learning_rate=3e-3, warmup_steps=10)
    folder = main(replace(debug(tmp_path / "learn", *args), loop=loop))
    result = json.loads((folder / "retrieval.json").read_text())
    score = {name: values["cross_scene"]["p_at_10"] for name, values in result["encoders"].items()}
    assert score["encoder"] > 1.4 * result["levels"]["scene"]["chance"]  # measured 1.86
    assert score["encoder"] > score["pixels"] and score["encoder"] > score["random weights"]


def test_registers_are_taught_the_scene(tmp_path):
    flags = ("--loss.scene", "1.0", "--loss.scene_leakage", "0.1", "--loop.steps", "2")
    table = small_table()
    model = train(debug(tmp_path, *flags), table, tmp_path)
    row = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert model.scene is not None and row["scene"] > 0 and row["scene_leakage"] >= 0
    plain = tmp_path / "plain"
    plain.mkdir()
    shared = ("--model.commit.register_encoder", "shared", "--loss.scene", "0", "--loop.steps", "1")
    assert train(debug(plain, *shared), table, plain).scene is None
    with pytest.raises(UserError, match=r"learn from loss\.scene alone: give it a weight"):
        debug(plain, "--loss.scene", "0")


def test_registers_of_shared_weights_are_taught_too(tmp_path):
    flags = (
        "--model.commit.register_encoder",
        "shared",
        "--loss.scene",
        "1.0",
        "--loop.steps",
        "2",
    )
    model = train(debug(tmp_path, *flags), small_table(), tmp_path)
    row = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert model.scene is not None and model.encoder.register_encoder is None and row["scene"] > 0
