"""UniVLA's latent action model: agreement with the published code, its checkpoint, its two stages."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from invact_vla.core.errors import UserError
from latent_actions.labelers import verify
from latent_actions.labelers.univla.checkpoint import load_univla, save_univla
from latent_actions.labelers.univla.config import UnivlaConfig
from latent_actions.labelers.univla.model import UnivlaModel
from tests.paths import GOLDEN, needs_golden


def small(**changes: int) -> UnivlaConfig:
    sizes = {
        "model_dim": 16, "latent_dim": 8, "num_latents": 8, "context_latents": 8, "enc_blocks": 1,
        "dec_blocks": 1, "num_heads": 2, "dino_dim": 12, "text_dim": 6,
    }  # fmt: skip
    return UnivlaConfig(**{**sizes, **changes})


def features(batch: int = 3, patches: int = 4, width: int = 12) -> torch.Tensor:
    return torch.randn(batch, 2, patches, width, generator=torch.Generator().manual_seed(0))


def made(config: UnivlaConfig) -> UnivlaModel:
    torch.manual_seed(0)
    return UnivlaModel(config)


@needs_golden
def test_agrees_with_the_published_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert GOLDEN is not None
    assert verify.main(verify.LaqVerifyConfig(path=GOLDEN / "univla_lam_tiny")) == 0
    printed = capsys.readouterr().out
    for name in ("indices", "indices_uncontrol", "z", "z_q", "z_uncontrol", "recon"):
        assert name in printed


@needs_golden
@pytest.mark.parametrize("prefix", ["lam.", "module.lam.", ""])
def test_the_lightning_checkpoint_opens_as_it_is(prefix: str, tmp_path: Path) -> None:
    assert GOLDEN is not None
    golden = GOLDEN / "univla_lam_tiny"
    for name in ("config.json", "inputs.safetensors", "expected.safetensors"):
        shutil.copyfile(golden / name, tmp_path / name)
    state = {prefix + k: v for k, v in load_file(golden / "model.safetensors").items()}
    state[prefix + "dino_encoder.cls_token"] = torch.zeros(1, 1, 768)
    checkpoint = {"state_dict": state, "epoch": 3, "callbacks": {"x": Path("y")}}
    torch.save(checkpoint, tmp_path / "lam-stage-2.ckpt")
    assert verify.main(verify.LaqVerifyConfig(path=tmp_path / "lam-stage-2.ckpt")) == 0
    assert verify.main(verify.LaqVerifyConfig(path=tmp_path)) == 0


@needs_golden
def test_the_model_has_exactly_the_published_keys() -> None:
    assert GOLDEN is not None
    lines = (GOLDEN / "univla_lam_tiny" / "keys.txt").read_text().splitlines()
    expected = {line.split(" ", 1)[0] for line in lines if line}
    with torch.device("meta"):
        assert set(UnivlaModel(small(enc_blocks=3, dec_blocks=2)).state_dict()) == expected


def test_sizes_are_read_off_a_bare_checkpoint(tmp_path: Path) -> None:
    config = small(model_dim=128, num_heads=2, text_dim=768)
    model = made(config).eval()
    state = {f"lam.{k}": v for k, v in model.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "lam-stage-2.ckpt")
    loaded = load_univla(tmp_path / "lam-stage-2.ckpt")
    assert loaded.config == config
    assert torch.equal(loaded.codes(features()), model.codes(features()))
    torch.save({"state_dict": {"weight": torch.zeros(1)}}, tmp_path / "lam-stage-2.ckpt")
    with pytest.raises(UserError, match="no latent action model of UniVLA"):
        load_univla(tmp_path / "lam-stage-2.ckpt")
    torch.save([1], tmp_path / "lam-stage-2.ckpt")
    with pytest.raises(UserError, match="expected a checkpoint with a state_dict"):
        load_univla(tmp_path)


def test_the_first_frame_does_not_see_the_second() -> None:
    model, clips = made(small()).eval(), features()
    other = clips.clone()
    other[:, 1] = other[:, 1].flip(-1)
    with torch.no_grad():
        one, two = (model.encoder(x) for x in (clips, other))
    assert torch.allclose(one[:, 0], two[:, 0], atol=1e-6)
    assert not torch.allclose(one[:, 1], two[:, 1], atol=1e-3)


def test_stage_1_reads_the_words_and_passes_over_their_padding() -> None:
    model = made(small(stage=1)).eval()
    text = torch.randn(3, 5, 6)
    seen = torch.tensor([[1, 1, 1, 0, 0]] * 3, dtype=torch.bool)
    padded = text.clone()
    padded[:, 3:] = 9.0
    with torch.no_grad():
        one = model(features(), text, seen).prediction
        assert torch.allclose(one, model(features(), padded, seen).prediction, atol=1e-6)
        assert not torch.allclose(one, model(features(), text + 1, seen).prediction, atol=1e-3)


def test_stage_2_keeps_the_codebook_of_stage_1_and_trains_its_own() -> None:
    first, model = made(small(stage=1)), made(small())
    model.take_stage_1(first)
    assert torch.equal(model.vq.codebook.weight, first.vq.codebook.weight)
    assert torch.equal(model.action_latent, first.action_latent)
    output = model(features())
    output.loss(features()[:, 1]).backward()
    assert model.vq.codebook.weight.grad is None
    for name in ("vq_action.codebook.weight", "to_codebook_uncontrol.weight", "action_latent"):
        assert model.get_parameter(name).grad is not None, name


def test_save_and_load_give_equal_codes(tmp_path: Path) -> None:
    for stage in (1, 2):
        model = made(small(stage=stage)).eval()
        save_univla(model, tmp_path / str(stage))
        loaded = load_univla(tmp_path / str(stage))
        assert loaded.config == model.config
        assert torch.equal(loaded.codes(features()), model.codes(features()))


def test_impossible_sizes_are_refused() -> None:
    for change in ({"num_heads": 3}, {"stage": 3}, {"enc_blocks": 0}, {"dec_blocks": 5000}):
        with pytest.raises(ValueError):
            small(**change)
