"""Frozen features of frames, and the DINOv2 in UniVLA's checkpoint."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from invact_vla.core.errors import UserError
from latent_actions.labelers.difference import feature_change
from latent_actions.labelers.features import (
    FeatureConfig,
    RandomFeatureConfig,
    VitFeatureConfig,
    VjepaFeatureConfig,
)
from latent_actions.labelers.labeler import FrameSpec
from latent_actions.labelers.univla.checkpoint import load_univla
from latent_actions.labelers.univla.dinov2 import dinov2_of
from latent_actions.labelers.univla.labeler import UnivlaLabelerConfig
from latent_actions.labelers.univla.model import UnivlaModel
from latent_actions.labelers.univla.text import instruction_tokens
from tests.latent_actions.labelers.test_univla import small

FRAMES = np.random.default_rng(0).integers(0, 256, (5, 3, 24, 24, 3), np.uint8)


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FeatureConfig]:
    from transformers import Dinov2Config, Dinov2Model, VJEPA2Config, VJEPA2Model

    folder = tmp_path_factory.mktemp("features")
    torch.manual_seed(0)
    vit = Dinov2Config(
        hidden_size=12, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=7
    )
    Dinov2Model(vit).save_pretrained(folder / "vit")
    vjepa = VJEPA2Config(
        patch_size=8, crop_size=16, frames_per_clip=2, tubelet_size=2, hidden_size=12,
        num_attention_heads=2, num_hidden_layers=1, mlp_ratio=2, pred_hidden_size=12,
        pred_num_attention_heads=2, pred_num_hidden_layers=1, pred_num_mask_tokens=1,
    )  # fmt: skip
    VJEPA2Model(vjepa).save_pretrained(folder / "vjepa")
    return {
        "vit": VitFeatureConfig(folder=folder / "vit", side=2),
        "vjepa": VjepaFeatureConfig(folder=folder / "vjepa", side=2),
        "random": RandomFeatureConfig(side=2, size=16, width=12),
    }


def test_every_member_is_tested(members: dict[str, FeatureConfig]) -> None:
    assert set(FeatureConfig.get_known_choices()) == set(members)


@pytest.mark.parametrize("name", ["vit", "vjepa", "random"])
def test_contract(name: str, members: dict[str, FeatureConfig]) -> None:
    features = members[name].build()
    found = features(FRAMES)
    assert found.shape == (5, 3, 4, 12) and found.dtype == np.float32 and np.isfinite(found).all()
    assert np.array_equal(found, members[name].build()(FRAMES))
    assert members[name].build().hash == features.hash and len(features.hash) == 16
    np.testing.assert_allclose(features(FRAMES[2:4]), found[2:4], atol=1e-5)
    assert np.abs(found[0, 0] - found[1, 0]).max() > 1e-3
    still = np.repeat(FRAMES[:, :1], 3, axis=1)
    assert np.abs(feature_change(features, still)).max() < 1e-5
    assert feature_change(features, FRAMES).shape == (5, 48)


def test_random_features_keep_places_apart(members: dict[str, FeatureConfig]) -> None:
    frames = np.full((1, 2, 16, 16, 3), 100, np.uint8)
    frames[0, 1, :8, :8] = 200  # the upper left quarter
    change = np.abs(np.diff(members["random"].build()(frames), axis=1)).max(axis=(0, 1, 3))
    assert change[0] > 0.1 and change[1:].max() < 1e-6


def test_a_size_that_fits_no_patches_is_refused(members: dict[str, FeatureConfig]) -> None:
    vit = members["vit"]
    assert isinstance(vit, VitFeatureConfig)
    with pytest.raises(UserError, match="no multiple of patches of 7"):
        VitFeatureConfig(folder=vit.folder, size=20).build()


def hub_names(model: torch.nn.Module, folder: Path) -> dict[str, torch.Tensor]:
    """Tensors of transformers' DINOv2 under the names of facebookresearch/dinov2."""
    model.save_pretrained(folder / "dinov2")  # type: ignore[operator]
    state, found = load_file(folder / "dinov2" / "model.safetensors"), {}
    embeddings = {
        "cls_token": "cls_token", "mask_token": "mask_token", "register_tokens": "register_tokens",
        "pos_embed": "position_embeddings",
        "patch_embed.proj.weight": "patch_embeddings.projection.weight",
        "patch_embed.proj.bias": "patch_embeddings.projection.bias",
    }  # fmt: skip
    for hub, name in embeddings.items():
        found[hub] = state[f"embeddings.{name}"]
    for part in ("weight", "bias"):
        found[f"norm.{part}"] = state[f"layernorm.{part}"]
        for layer in range(2):
            own, block = f"encoder.layer.{layer}.", f"blocks.{layer}."
            qkv = [state[f"{own}attention.attention.{n}.{part}"] for n in ("query", "key", "value")]
            found[f"{block}attn.qkv.{part}"] = torch.cat(qkv)
            found[f"{block}attn.proj.{part}"] = state[f"{own}attention.output.dense.{part}"]
            for name in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
                found[f"{block}{name}.{part}"] = state[f"{own}{name}.{part}"]
            for number in (1, 2):
                found[f"{block}ls{number}.gamma"] = state[f"{own}layer_scale{number}.lambda1"]
    return {f"dino_encoder.{name}": tensor for name, tensor in found.items()}


def dinov2() -> torch.nn.Module:
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    torch.manual_seed(0)
    return Dinov2WithRegistersModel(
        Dinov2WithRegistersConfig(
            hidden_size=64, num_hidden_layers=2, num_attention_heads=1, image_size=56, patch_size=14
        )
    ).eval()


def test_the_tower_of_a_checkpoint_is_that_of_the_hub(tmp_path: Path) -> None:
    model = dinov2()
    tower = dinov2_of(hub_names(model, tmp_path))
    images = torch.randn(2, 3, 28, 28)
    with torch.no_grad():
        expected = model(images).last_hidden_state
        torch.testing.assert_close(tower(images).last_hidden_state, expected)
    broken = hub_names(model, tmp_path)
    del broken["dino_encoder.blocks.1.norm1.weight"]
    with pytest.raises(UserError, match=r"layer\.1\.norm1\.weight"):
        dinov2_of(broken)


def test_a_published_checkpoint_labels_with_its_own_tower(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = small(model_dim=64, num_heads=1, dino_dim=64, text_dim=768)
    state = {**UnivlaModel(config).state_dict(), **hub_names(dinov2(), tmp_path)}
    file = tmp_path / "lam-stage-2.ckpt"
    torch.save({"state_dict": {f"lam.{k}": v for k, v in state.items()}}, file)
    assert load_univla(file).config == config
    labeler_config = UnivlaLabelerConfig(weights=file)
    assert labeler_config.frame_spec() == FrameSpec(224)

    def never():
        raise AssertionError("published weights are not trained")

    labeler = labeler_config.build(tmp_path, never)
    codes = labeler.codes(np.repeat(FRAMES, 4, axis=2).repeat(4, axis=3))
    assert codes.shape == (5, 4) and len(labeler.hash) == 16
    bare = tmp_path / "bare"
    bare.mkdir()
    torch.save(UnivlaModel(config).state_dict(), bare / "lam.pt")
    with pytest.raises(UserError, match="holds no DINOv2"):
        UnivlaLabelerConfig(weights=bare / "lam.pt").build(tmp_path, never)
    features = RandomFeatureConfig(width=8)
    with pytest.raises(UserError, match=r"features of 64 dimensions.*gives 8"):
        UnivlaLabelerConfig(weights=bare / "lam.pt", features=features).build(tmp_path, never)
    with pytest.raises(UserError, match="univla trains on frozen features"):
        UnivlaLabelerConfig().build(tmp_path, never)


def test_instructions_become_a_token_per_word() -> None:
    texts = ["Put the cup down!", "put the cup", ""]
    tokens, seen = instruction_tokens(texts, 16, None, torch.device("cpu"))
    assert tokens.shape == (3, 4, 16) and seen.sum(axis=1).tolist() == [4, 3, 1]
    assert np.array_equal(tokens[0, :3], tokens[1, :3]) and np.abs(tokens[1, 3]).max() == 0
