"""Vision towers: timm VisionTransformers read at their second-to-last block.

Axis letters: B images, C channels, H W pixels, P patches, D width.
Source: OpenVLA's Prismatic backbone (arxiv.org/abs/2406.09246, §3.1; github.com/openvla/openvla).
"""

import inspect
from itertools import islice
from typing import Any

import timm
import torch
from einops import rearrange
from timm.layers.patch_embed import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

from invact_vla.core.errors import UserError
from invact_vla.core.limits import short, some
from invact_vla.openvla.attention import AttentionImpl, use_fused
from invact_vla.openvla.config import OpenVLAConfig, TowerConfig


class VisionBackbone(nn.Module):
    """One tower (`featurizer`) or two (`featurizer`, `fused_featurizer`) on the same images.

    pixel_values: (B, 3 n_towers, H, W), each tower's own normalization -> (B, P, sum of widths).
    """

    def __init__(self, config: OpenVLAConfig, attention: AttentionImpl = "auto") -> None:
        super().__init__()
        self.attention: AttentionImpl = attention
        self.checkpointing = False  # recompute blocks in the backward pass
        towers = build_towers(config)
        self.featurizer = towers[0]
        self.fused_featurizer = towers[1] if len(towers) == 2 else None
        self.width = sum(tower.embed_dim for tower in towers)
        for module in (m for tower in towers for m in unused_modules(tower)):
            module.requires_grad_(False)

    @property
    def towers(self) -> list[VisionTransformer]:
        """The towers in channel order."""
        second = [] if self.fused_featurizer is None else [self.fused_featurizer]
        return [self.featurizer, *second]

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Patch tokens of all towers, concatenated on the width, row-major."""
        towers, shape = self.towers, tuple(pixel_values.shape)
        if len(shape) != 4 or shape[1] != 3 * len(towers):
            raise ValueError(f"pixel_values: expected (B, {3 * len(towers)}, H, W), got {shape}")
        checkpointing = self.checkpointing and self.training
        features = [
            tower_features(tower, images, self.attention, checkpointing)
            for tower, images in zip(towers, pixel_values.split(3, dim=1), strict=True)
        ]
        return torch.cat(features, dim=2)


def tower_features(
    tower: VisionTransformer, images: Tensor, attention: AttentionImpl, checkpointing: bool
) -> Tensor:
    """(B, 3, H, W) -> (B, P, D): second-to-last block's output, prefix tokens dropped, no norm.

    The last block is not run; `get_intermediate_layers` of timm would give the same numbers.
    """
    x = embed_patches(tower.patch_embed, images)
    x = tower.norm_pre(tower._pos_embed(x))
    fused = use_fused(attention, x)
    for block in islice(tower.blocks, len(tower.blocks) - 1):
        setattr(block.attn, "fused_attn", fused)  # noqa: B010 - timm's flag, unknown to its types
        x = checkpoint(block, x, use_reentrant=False) if checkpointing else block(x)
    return x[:, tower.num_prefix_tokens :]


def embed_patches(embed: Any, images: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, P, D) of timm's PatchEmbed, as a matrix product: patches do not overlap,
    and on a CPU a convolution takes several times as long, for few images as in its backward pass."""
    proj = embed.proj
    simple = type(embed) is PatchEmbed and type(proj) is nn.Conv2d and embed.flatten
    if not simple or tuple(images.shape[2:]) != embed.img_size:
        return embed(images)
    height, width = proj.kernel_size
    if proj.stride != proj.kernel_size or images.shape[2] % height or images.shape[3] % width:
        return embed(images)
    patches = rearrange(images, "b c (y h) (x w) -> b (y x) (c h w)", h=height, w=width)
    return embed.norm(linear(patches, proj.weight.flatten(1), proj.bias))


def unused_modules(tower: VisionTransformer) -> list[nn.Module]:
    """What is never run: the last block, the final norm and the attention pool."""
    unused = [tower.blocks[-1], tower.norm, tower.fc_norm, tower.head, tower.attn_pool]
    return [module for module in unused if module is not None]


def build_towers(config: OpenVLAConfig) -> list[VisionTransformer]:
    """Towers by explicit arguments where given, else by their timm names, with random weights."""
    overrides = [*config.timm_override_act_layers, None, None]
    if config.towers:
        return [build_tower(t, act) for t, act in zip(config.towers, overrides, strict=False)]
    known = set(timm.list_models())
    towers = []
    for index, name in enumerate(config.timm_model_ids):
        if name.split(".")[0] not in known:
            raise UserError(
                f"unknown tower id {short(name)}: expected a VisionTransformer name of timm "
                f"{timm.__version__}, or an explicit `towers` list (towers.json or config.json)"
            )
        size = config.image_sizes[min(index, len(config.image_sizes) - 1)]
        tower = timm.create_model(
            name, pretrained=False, num_classes=0, img_size=size, act_layer=overrides[index]
        )
        if not isinstance(tower, VisionTransformer):
            raise UserError(f"tower {name!r} is a {type(tower).__name__}, not a VisionTransformer")
        towers.append(tower)
    return towers


def build_tower(config: TowerConfig, act_layer: str | None = None) -> VisionTransformer:
    """A VisionTransformer from explicit arguments. act_layer: timm's name, null for exact GELU."""
    known = set(inspect.signature(VisionTransformer).parameters)
    unknown = set(config.options) - known
    if unknown:
        raise UserError(
            f"unknown tower arguments {some(sorted(unknown))}: VisionTransformer has {sorted(known)}"
        )
    arguments = {name: value for name, value in vars(config).items() if name in known}
    arguments |= {"num_classes": 0, "act_layer": act_layer, **config.options}
    try:
        return VisionTransformer(**arguments)
    except (TypeError, ValueError, AssertionError) as error:
        raise UserError(f"tower {short(config.kind)}: {short(error)}") from error
