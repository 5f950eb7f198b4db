"""The DINOv2 in UniVLA's checkpoint: names of facebookresearch/dinov2 -> names of transformers."""

import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from invact_vla.core.errors import UserError
from latent_actions.published_model import published_model

PREFIX = "dino_encoder."
PUBLISHED_SIZE = 224  # side of UniVLA's frames, pixels
_NAMES = (
    (r"^cls_token$", "embeddings.cls_token"),
    (r"^mask_token$", "embeddings.mask_token"),
    (r"^register_tokens$", "embeddings.register_tokens"),
    (r"^pos_embed$", "embeddings.position_embeddings"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^norm\.", "layernorm."),
    (r"^blocks\.(\d+)\.ls(\d)\.gamma$", r"encoder.layer.\1.layer_scale\2.lambda1"),
    (r"^blocks\.(\d+)\.attn\.proj\.", r"encoder.layer.\1.attention.output.dense."),
    (r"^blocks\.(\d+)\.", r"encoder.layer.\1."),
)


def has_dinov2(weights: Mapping[str, Tensor]) -> bool:
    """Whether a checkpoint holds the tower."""
    return f"{PREFIX}cls_token" in weights


def dinov2_of(weights: Mapping[str, Tensor], heads: int | None = None) -> Any:
    """The tower of a checkpoint as a model of transformers, in eval mode and fp32. heads: attention
    heads; none: 64 numbers each. UserError for tensors that are missing or misshapen."""
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    state = {k.removeprefix(PREFIX): v.float() for k, v in weights.items() if k.startswith(PREFIX)}
    try:
        patch, width = state["patch_embed.proj.weight"], state["cls_token"].shape[-1]
        depth = 1 + max(int(k.split(".")[1]) for k in state if k.startswith("blocks."))
        side = round((state["pos_embed"].shape[1] - 1) ** 0.5)
        config = Dinov2WithRegistersConfig(
            hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads or width // 64,
            mlp_ratio=state["blocks.0.mlp.fc1.weight"].shape[0] // width,
            image_size=side * patch.shape[-1], patch_size=patch.shape[-1],
            num_register_tokens=state["register_tokens"].shape[1],
        )  # fmt: skip
    except (LookupError, ValueError) as error:
        raise UserError(f"the checkpoint holds no DINOv2 with registers: no {error}") from error
    with TemporaryDirectory() as temporary:  # names differ between versions: its reader knows them
        config.save_pretrained(temporary)
        save_file(_renamed(state), Path(temporary) / "model.safetensors", {"format": "pt"})
        return published_model(Dinov2WithRegistersModel, temporary)


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if match := re.match(r"^blocks\.(\d+)\.attn\.qkv\.(weight|bias)$", name):
            for part, value in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                place = f"encoder.layer.{match[1]}.attention.attention.{part}.{match[2]}"
                found[place] = value.clone()
            continue
        for pattern, place in _NAMES:
            if re.match(pattern, name):
                found[re.sub(pattern, place, name)] = tensor.clone()
                break
        else:
            found[name] = tensor.clone()
    return found
