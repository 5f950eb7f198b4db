"""LAQ: agreement with the published code, the mended defects, strict loading."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from invact_vla.core.errors import UserError
from latent_actions.labelers import verify
from latent_actions.labelers.laq.blocks import Attention, GridView, PositionGenerator
from latent_actions.labelers.laq.checkpoint import from_pretrained, save_pretrained
from latent_actions.labelers.laq.config import CODE_LENGTHS, LaqConfig
from latent_actions.labelers.laq.model import LatentActionQuantizer
from latent_actions.labelers.laq.task import PairAugmentConfig, augment
from latent_actions.labelers.vector_quantizers import substitute_noise
from tests.paths import GOLDEN, needs_golden

FULL_PARAMETERS = 343_796_080


def tiny(**changes: object) -> LaqConfig:
    sizes = {
        "dim": 16, "quant_dim": 8, "image_size": 16, "patch_size": 2, "spatial_depth": 1,
        "temporal_depth": 1, "dim_head": 8, "heads": 2,
    }  # fmt: skip
    return LaqConfig(**{**sizes, **changes})


def make(config: LaqConfig, seed: int = 0) -> LatentActionQuantizer:
    torch.manual_seed(seed)
    model = LatentActionQuantizer(config).eval()
    head = model.to_pixels_first_frame[0]
    torch.nn.init.normal_(head.weight, std=0.1)  # the trained state, not the zero start
    return model


def video(batch: int = 3, size: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.rand(batch, 3, 2, size, size, generator=torch.Generator().manual_seed(seed))


@needs_golden
def test_agrees_with_the_published_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert GOLDEN is not None
    assert verify.main(verify.LaqVerifyConfig(path=GOLDEN / "lapa_laq_tiny")) == 0
    printed = capsys.readouterr().out
    for name in ("indices", "delta", "first_tokens", "last_tokens", "reconstruction"):
        assert name in printed


@needs_golden
@pytest.mark.parametrize("change", ["weight", "indices", "shape"])
def test_verify_finds_a_disagreement(
    change: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert GOLDEN is not None
    folder = tmp_path / "laq"
    shutil.copytree(GOLDEN / "lapa_laq_tiny", folder, copy_function=shutil.copyfile)
    folder.chmod(0o755)
    name = "model" if change == "weight" else "expected"
    tensors = load_file(folder / f"{name}.safetensors")
    if change == "weight":
        tensors["vq.project_in.weight"] += 0.01
    elif change == "indices":
        tensors["indices"][0, 0] = (tensors["indices"][0, 0] + 1) % 8
    else:
        tensors["delta"] = tensors["delta"][:-1].clone()
    save_file(tensors, folder / f"{name}.safetensors")
    assert verify.main(verify.LaqVerifyConfig(path=folder)) == 1
    assert "DISAGREE" in capsys.readouterr().out


@needs_golden
def test_full_size_has_the_published_keys() -> None:
    assert GOLDEN is not None
    lines = (GOLDEN / "lapa_laq_full_keys.txt").read_text().split("\n")
    expected = dict(line.split() for line in lines if line)
    with torch.device("meta"):
        model = LatentActionQuantizer(LaqConfig(lapa_compat=True))
    ours = {k: "x".join(map(str, v.shape)) for k, v in model.state_dict().items()}
    assert ours == expected and len(ours) == 493
    assert sum(p.numel() for p in model.parameters()) == FULL_PARAMETERS


@needs_golden
def test_the_mended_model_differs(tmp_path: Path) -> None:
    assert GOLDEN is not None
    tensors = load_file(GOLDEN / "lapa_laq_tiny" / "model.safetensors")
    config = json.loads((GOLDEN / "lapa_laq_tiny" / "config.json").read_text())
    model = LatentActionQuantizer(LaqConfig(**config))
    extra = {k: v for k, v in model.state_dict().items() if k not in tensors}
    assert list(extra) == ["vq.code_positions"]
    model.load_state_dict({**tensors, **extra})
    frames = load_file(GOLDEN / "lapa_laq_tiny" / "inputs.safetensors")["video"]
    expected = load_file(GOLDEN / "lapa_laq_tiny" / "expected.safetensors")
    assert (model(frames).first_tokens - expected["first_tokens"]).abs().max() > 0.1


@pytest.mark.parametrize("lapa_compat", [True, False])
def test_first_tokens_see_the_second_frame_only_in_the_published_model(lapa_compat: bool) -> None:
    model = make(tiny(lapa_compat=lapa_compat))
    one, other = video(), video()
    other[:, :, 1] = video(seed=1)[:, :, 1]
    with torch.no_grad():
        change = (model(one).first_tokens - model(other).first_tokens).abs().max()
    assert (change > 1e-3) if lapa_compat else (change < 1e-6)


@pytest.mark.parametrize("lapa_compat", [True, False])
def test_a_decoder_token_holds_one_code_unless_faithful(lapa_compat: bool) -> None:
    bottleneck = make(tiny(lapa_compat=lapa_compat)).vq
    vectors = torch.zeros(1, 4, 8)
    changed = vectors.clone()
    changed[0, 2] = 1.0
    difference = (bottleneck.to_decoder(changed) - bottleneck.to_decoder(vectors)).abs().amax(-1)[0]
    moved = [int(i) for i in (difference > 1e-6).nonzero()]
    assert moved == ([0, 1, 2, 3] if lapa_compat else [2])


def test_time_view_is_the_inverse_of_itself_and_the_scrambled_one_differs() -> None:
    tokens = torch.arange(2 * 3 * 4 * 2 * 5).float().reshape(2 * 3 * 4, 2, 5)
    proper, scrambled = GridView("time", 2, 3, 4), GridView("time_scrambled", 2, 3, 4)
    for view in (proper, scrambled):
        assert torch.equal(view.back(view.see(tokens)), tokens)
    assert torch.equal(proper.see(tokens)[1, 1, 2, 3], tokens[12 + 2 * 4 + 3, 1])
    assert not torch.equal(proper.see(tokens), scrambled.see(tokens))


@pytest.mark.parametrize("frames", [1, 2])
def test_position_generator_equals_the_3d_convolution(frames: int) -> None:
    torch.manual_seed(0)
    generator = PositionGenerator(6)
    grid = torch.randn(2, frames, 4, 5, 6)
    padded = torch.nn.functional.pad(grid.permute(0, 4, 1, 2, 3), (1, 1, 1, 1, 2, 0))
    expected = generator.dsconv(padded).permute(0, 2, 3, 4, 1)
    torch.testing.assert_close(generator(grid), expected)


@pytest.mark.parametrize("causal", [True, False])
def test_attention_over_two_tokens_equals_the_general_one(causal: bool) -> None:
    torch.manual_seed(0)
    attention = Attention(
        dim=8, dim_head=4, heads=2, null_pairs=0, normalize_kv=True, causal=causal
    )
    tokens = torch.randn(3, 2, 8)
    short = attention(tokens)
    general = attention(tokens, bias=torch.zeros(2, 2, 2))  # a bias rules the short way out
    torch.testing.assert_close(short, general)


@pytest.mark.parametrize("length", CODE_LENGTHS)
@pytest.mark.parametrize("lapa_compat", [True, False])
def test_every_code_length(length: int, lapa_compat: bool) -> None:
    grid = {16: 16, 64: 16, 256: 32}.get(length, 8)
    model = make(tiny(code_seq_len=length, image_size=2 * grid, lapa_compat=lapa_compat))
    with torch.no_grad():
        output = model(video(2, 2 * grid))
    assert output.quantized.codes.shape == (2, length)
    assert output.reconstruction.shape == (2, 3, 2 * grid, 2 * grid)
    assert output.quantized.codes.min() >= 0 and output.quantized.codes.max() < 8


def test_no_noise_without_training() -> None:
    model = make(tiny())
    with torch.no_grad():
        first, second = model(video()), model(video())
        noisy = model(video(), noise=True)
    assert torch.equal(first.reconstruction, second.reconstruction)
    assert torch.equal(first.quantized.codes, noisy.quantized.codes)
    assert not torch.equal(first.reconstruction, noisy.reconstruction)


def test_noise_has_the_length_of_the_error() -> None:
    delta, code = torch.randn(5, 4, 8), torch.randn(5, 4, 8)
    replaced = substitute_noise(delta, code)
    torch.testing.assert_close((replaced - delta).norm(dim=-1), (delta - code).norm(dim=-1))
    torch.testing.assert_close(substitute_noise(delta, delta), delta, atol=1e-4, rtol=0)


def test_gradients_reach_encoder_and_codebook_but_not_the_patches_by_the_decoder() -> None:
    model = make(tiny())
    model(video(), noise=True).reconstruction.square().mean().backward()
    for name in ("vq.codebooks", "vq.project_in.weight", "to_patch_emb_first_frame.2.weight"):
        assert model.get_parameter(name).grad is not None, name
    model.zero_grad()
    with torch.no_grad():
        vectors = model(video()).quantized.vectors
    patches = model.to_patch_emb_first_frame(video())
    bias = model.spatial_rel_pos_bias(8, 8)
    model._decode(video()[:, :, 0], patches[:, :1], vectors, bias).sum().backward()
    assert model.to_patch_emb_first_frame[2].weight.grad is None


def test_residual_model_starts_as_a_copy_of_the_first_frame() -> None:
    torch.manual_seed(0)
    model = LatentActionQuantizer(tiny(residual=True))
    with torch.no_grad():
        assert torch.equal(model(video()).reconstruction, video()[:, :, 0])


def test_save_and_load_give_equal_codes(tmp_path: Path) -> None:
    model = make(tiny(residual=True))
    save_pretrained(model, tmp_path / "model")
    loaded = from_pretrained(tmp_path / "model")
    assert loaded.config == model.config
    with torch.no_grad():
        assert torch.equal(loaded(video()).reconstruction, model(video()).reconstruction)


def test_loading_is_strict(tmp_path: Path) -> None:
    model = make(tiny())
    save_pretrained(model, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["vq.codebooks"]
    save_file({**weights, "extra": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"2 differences.*missing vq.codebooks, unexpected extra"):
        from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match="not a whole weights file"):
        from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no file"):
        from_pretrained(tmp_path)


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    save_pretrained(make(tiny()), tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    for codebooks, said in (
        (weights["vq.codebooks"].mul(100).to(torch.int8), "holds torch.int8, not torch.float32"),
        (weights["vq.codebooks"].mul(torch.nan), "NaN or infinity in vq.codebooks"),
    ):
        save_file({**weights, "vq.codebooks": codebooks}, tmp_path / "model.safetensors")
        with pytest.raises(UserError, match=said):
            from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dim": None}, "missing keys"),
        ({"width": 3}, "unknown keys"),
        ({"code_seq_len": 3}, "one of"),
    ],
)
def test_a_bad_config_file_is_named(tmp_path: Path, change: dict, message: str) -> None:
    save_pretrained(make(tiny()), tmp_path)
    values = {**json.loads((tmp_path / "config.json").read_text()), **change}
    values = {k: v for k, v in values.items() if v is not None}
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=message):
        from_pretrained(tmp_path)


def test_a_grid_that_does_not_give_the_code_length_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        tiny(image_size=32)


def test_augmentation_changes_both_frames_alike() -> None:
    frames = np.random.default_rng(0).integers(60, 180, (6, 2, 8, 8, 3), np.uint8)
    frames[:, 1] = frames[:, 0]
    config = PairAugmentConfig(gain=0.3, offset=0.1, permute=True, flip=True)
    changed = augment(frames, config, np.random.default_rng(1))
    assert np.array_equal(changed[:, 0], changed[:, 1])
    assert all((one != other).any() for one, other in zip(changed, frames, strict=True))
    assert np.array_equal(changed, augment(frames, config, np.random.default_rng(1)))
    assert augment(frames, PairAugmentConfig(), np.random.default_rng(1)) is frames
    flipped = augment(frames, PairAugmentConfig(flip=True), np.random.default_rng(0))
    mirrored = [
        np.array_equal(one, other[:, :, ::-1]) for one, other in zip(flipped, frames, strict=True)
    ]
    assert any(mirrored) and not all(mirrored)
    with pytest.raises(ValueError, match="gain"):
        PairAugmentConfig(gain=1.0)
