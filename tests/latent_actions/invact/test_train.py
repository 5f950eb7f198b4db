"""Training from config to products: learns, resumes exactly, evaluates, refuses nonsense."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from invact_vla.errors import UserError
from invact_vla.training.cli import parse_config
from invact_vla.training.loop import LoopConfig
from latent_actions.invact import batches
from latent_actions.invact.encoder import InvActEncoder
from latent_actions.invact.sprites import SpriteConfig
from latent_actions.invact.train import EncoderTrainConfig, RoutingSchedule, main, train
from latent_actions.retrieval import evaluate
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


@pytest.mark.parametrize("name", ["encoder_debug", "encoder_cpu", "encoder_base"])
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
    assert {"contrast", "action_share", "register_share_1", "switch_rate", "verb_class"} <= rows[
        -1
    ].keys()
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
    draw = batches.Batches.__call__

    def dies(self, step, size):
        if step == 5:
            raise KeyboardInterrupt
        return draw(self, step, size)

    monkeypatch.setattr(batches.Batches, "__call__", dies)
    with pytest.raises(KeyboardInterrupt):
        train(config, table, tmp_path / "torn")
    monkeypatch.setattr(batches.Batches, "__call__", draw)
    torn = train(config, table, tmp_path / "torn").state_dict()
    assert all(torch.equal(whole[name], torn[name]) for name in whole)


def test_evaluate_command(run, tmp_path, capsys):
    config = parse_config(
        evaluate.EvalConfig,
        ["--out", str(tmp_path / "eval"), "--encoder", str(run), "--data.type", "sprites",
         "--data.moments", "16", "--data.val_moments", "24", "--data.val_scenes", "3"],
    )  # fmt: skip
    folder = evaluate.main(config)
    assert "chance" in capsys.readouterr().out
    result = json.loads((folder / "retrieval.json").read_text())
    assert result["encoders"]["encoder"]["g-x same_moment"]["n"] == 24


def test_one_scene_cannot_be_evaluated(run, tmp_path):
    data = SpriteConfig(moments=8, val_moments=8, val_scenes=1)
    config = evaluate.EvalConfig(out=tmp_path / "eval", encoder=run, data=data)
    with pytest.raises(UserError, match="two or more"):
        evaluate.main(config)


def test_rows_harden_late():
    schedule = RoutingSchedule(
        harden_at=0.5, temperature_start=1.0, temperature_end=0.4, anneal=0.25
    )
    assert not schedule.at(49, 100).hard
    assert schedule.at(50, 100).hard and schedule.at(50, 100).temperature == pytest.approx(1.0)
    assert schedule.at(99, 100).temperature == pytest.approx(0.4)


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
