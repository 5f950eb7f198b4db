"""Baselines that transformers has classes for, on tiny random models saved to a folder."""

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn

from invact_vla.core.errors import UserError
from latent_actions.retrieval.baselines import (
    BaselineConfig,
    ClipConfig,
    Dinov3Config,
    TimesformerBaselineConfig,
    Vjepa2BaselineConfig,
    load_baseline,
)
from latent_actions.retrieval.baselines.baseline import CLIP_COLORS, IMAGENET, KINETICS

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
VIT = {**SIZES, "intermediate_size": 32, "image_size": 32, "patch_size": 16}


def save(model: nn.Module, folder: Path) -> str:
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)  # type: ignore[operator]
    return str(folder)


def clip_folder(folder: Path) -> str:
    """A whole CLIP, as the hub has it: the text side is left out when loading."""
    config = transformers.CLIPConfig(
        vision_config={**VIT, "projection_dim": 8},
        text_config={**SIZES, "intermediate_size": 32, "vocab_size": 50},
        projection_dim=8,
    )  # fmt: skip
    return save(transformers.CLIPModel(config), folder)


def dinov3_folder(folder: Path) -> str:
    return save(transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**VIT)), folder)


def vjepa2_folder(folder: Path) -> str:
    config = transformers.VJEPA2Config(
        **SIZES, patch_size=16, crop_size=32, frames_per_clip=4, mlp_ratio=2.0,
        pred_hidden_size=16, pred_num_attention_heads=2, pred_num_hidden_layers=1,
    )  # fmt: skip
    return save(transformers.VJEPA2Model(config), folder)


def timesformer_folder(folder: Path) -> str:
    """A classifier, as the hub has it."""
    config = transformers.TimesformerConfig(**VIT, num_frames=4)
    return save(transformers.TimesformerForVideoClassification(config), folder)


FOLDERS = {
    "clip": clip_folder, "dinov3": dinov3_folder, "vjepa2": vjepa2_folder,
    "timesformer": timesformer_folder,
}  # fmt: skip


def config_of(name: str, folder: Path) -> BaselineConfig:
    weights = FOLDERS[name](folder / name)
    if name == "dinov3":
        return Dinov3Config(weights=weights, frames=4, size=32)
    kinds = {"clip": ClipConfig, "vjepa2": Vjepa2BaselineConfig}
    return kinds.get(name, TimesformerBaselineConfig)(weights=weights, frames=4)


def clips(count: int = 2) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, 4, 32, 32, 3), dtype=np.uint8)


def pixels(colors: tuple) -> torch.Tensor:
    """What transformers' own processors give for clips of the right size."""
    mean, std = (torch.tensor(c)[:, None, None] for c in colors)
    return (torch.from_numpy(clips()).permute(0, 1, 4, 2, 3).float() / 255 - mean) / std


def unit(vectors: torch.Tensor) -> np.ndarray:
    return nn.functional.normalize(vectors, dim=-1).numpy()


@pytest.mark.parametrize("name", FOLDERS)
def test_embeds_what_the_model_gives(name: str, tmp_path: Path) -> None:
    config = config_of(name, tmp_path)
    found = load_baseline(config)(clips())
    folder = str(tmp_path / name)
    with torch.no_grad():
        if name == "clip":
            model = transformers.CLIPModel.from_pretrained(folder).eval()
            images = pixels(CLIP_COLORS).flatten(0, 1)
            pooled = model.vision_model(pixel_values=images).pooler_output
            frames = nn.functional.normalize(model.visual_projection(pooled), dim=-1)
            wanted = frames.reshape(2, 4, -1).mean(dim=1)
        elif name == "dinov3":
            model = transformers.DINOv3ViTModel.from_pretrained(folder).eval()
            output = model(pixel_values=pixels(IMAGENET).flatten(0, 1)).pooler_output
            wanted = output.reshape(2, 4, -1).mean(dim=1)
        elif name == "timesformer":
            model = transformers.TimesformerModel.from_pretrained(folder).eval()
            wanted = model(pixel_values=pixels(KINETICS)).last_hidden_state[:, 0]
        else:
            assert found.shape == (2, 16)
            return
    assert np.allclose(found, unit(wanted), atol=1e-5)


def test_vjepa2_reads_its_own_processors_pixels(tmp_path: Path) -> None:
    embed = load_baseline(config_of("vjepa2", tmp_path))
    processor = transformers.VJEPA2VideoProcessor(crop_size=32)
    model = transformers.VJEPA2Model.from_pretrained(str(tmp_path / "vjepa2")).eval()
    video = torch.from_numpy(clips()[0]).permute(0, 3, 1, 2)
    with torch.no_grad():
        tokens = model.get_vision_features(
            processor(video, return_tensors="pt")["pixel_values_videos"]
        )
    cosine = float((unit(tokens.mean(dim=1)) * embed(clips()[:1])).sum())
    assert cosine > 0.999  # the processor rounds resized pixels to bytes
    with pytest.raises(UserError, match="tubelets"):
        Vjepa2BaselineConfig(weights=str(tmp_path / "vjepa2"), frames=5).load()


def test_dinov3_patches_and_concatenated_frames(tmp_path: Path) -> None:
    weights = dinov3_folder(tmp_path)
    for tokens, pool, width in (("patches", "mean", 16), ("class", "concat", 64)):
        config = Dinov3Config(weights=weights, tokens=tokens, pool=pool, frames=4, size=32)  # type: ignore[arg-type]
        assert load_baseline(config)(clips()).shape == (2, width)


def test_a_missing_tensor_is_an_error_not_a_random_one(tmp_path: Path) -> None:
    weights = timesformer_folder(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    gone = next(name for name in state if name.endswith("layer.1.output.dense.weight"))
    save_file(
        {k: v for k, v in state.items() if k != gone},
        tmp_path / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(UserError, match="1 tensors are missing"):
        load_baseline(TimesformerBaselineConfig(weights=weights, frames=4))


def test_no_folder_is_a_user_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="no folder"):
        load_baseline(ClipConfig(weights=str(tmp_path / "nothing")))
