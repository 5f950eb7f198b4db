"""The transformers of the ViT-shaped baselines: timm's for images, and one for video whose attention
is divided over space and time.

Parameter names are those shared by timm, DINO, DINOv2 and the frozen-in-time family (cls_token,
pos_embed, patch_embed.proj, blocks.N.attn.qkv, ...), so published files load without renaming.

B batch, F frames, N patches per frame, d width, h heads, e head width.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

_MLP_RATIO = 4


@dataclass(frozen=True, kw_only=True)
class VitShape:
    """Sizes of a ViT. The defaults are ViT-B/16 at 224 px."""

    width: int = 768  # of tokens, d
    depth: int = 12  # blocks
    heads: int = 12  # attention heads
    patch: int = 16  # patch size (px)
    grid: int = 14  # side of the table of positions, in tokens
    registers: int = 0  # extra tokens behind the class token
    class_position: bool = True  # the table of positions has a row for the class token
    layer_scale: bool = False  # learned gain on every residual branch (DINOv2)

    def __post_init__(self) -> None:
        if self.width % self.heads or min(self.depth, self.patch, self.grid) < 1:
            raise ValueError(f"width must be a multiple of heads, sizes at least 1: {self}")


def image_vit(shape: VitShape, size: int | None = None) -> Any:
    """timm's ViT: (B, 3, H, W) -> the class token after the last norm, (B, d).

    size: of its images (px); None: any that patches tile, whose positions timm resizes."""
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        img_size=size or shape.patch * shape.grid, patch_size=shape.patch, num_classes=0,
        embed_dim=shape.width, depth=shape.depth, num_heads=shape.heads,
        reg_tokens=shape.registers, no_embed_class=not shape.class_position,
        init_values=1e-5 if shape.layer_scale else None, dynamic_img_size=size is None,
        norm_layer=partial(nn.LayerNorm, eps=1e-6), weight_init="skip",
    )  # fmt: skip


def resize_as_dino(table: Tensor, shape: VitShape, size: int) -> Tensor:
    """Positions (1, 1 + grid^2, d), class token first, of images of `size` pixels, by DINO's code."""
    side = size // shape.patch
    if side == shape.grid or table.shape[1] != 1 + shape.grid**2:
        return table
    image = rearrange(table[:, 1:].float(), "b (h w) d -> b d h w", h=shape.grid)
    # DINO's own form: the 0.1 keeps the rounded size right and shifts the samples a little
    image = F.interpolate(image, scale_factor=(side + 0.1) / shape.grid, mode="bicubic")
    return torch.cat([table[:, :1].float(), rearrange(image, "b d h w -> b (h w) d")], dim=1)


class DividedAttention(nn.Module):
    """Multi-head attention divided over space or time (frozen in time, arxiv.org/abs/2104.00650)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor, frames: int, groups: str) -> Tensor:
        """(B, 1 + F N, d) -> same. The class token sees all; a patch sees the class token and its
        group. groups: "(b f) h n e" for its frame, "(b n) h f e" for its place over time."""
        q, k, v = rearrange(self.qkv(tokens), "b m (x h e) -> x b h m e", x=3, h=self.heads)
        first = F.scaled_dot_product_attention(q[:, :, :1], k, v)
        cut = f"b h (f n) e -> {groups}"
        parts = [rearrange(x[:, :, 1:], cut, f=frames) for x in (q, k, v)]
        times = len(parts[0]) // len(q)
        key, value = (
            torch.cat([repeat(x[:, :, :1], "b h m e -> (b r) h m e", r=times), part], dim=2)
            for x, part in ((k, parts[1]), (v, parts[2]))
        )
        rest = F.scaled_dot_product_attention(parts[0], key, value)
        rest = rearrange(rest, f"{groups} -> b h (f n) e", f=frames, b=len(q))
        return self.proj(rearrange(torch.cat([first, rest], dim=2), "b h m e -> b m (h e)"))


class QuickGelu(nn.Module):
    """CLIP's cheap GELU."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class SpaceTimeBlock(nn.Module):
    """Time attention feeds space attention, whose residual starts from the block's input.

    gated: the time branch is scaled by tanh of a learned number (LaViLa)."""

    def __init__(self, width: int, heads: int, eps: float, quick: bool, gated: bool) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width, eps) for _ in range(3))
        self.attn, self.timeattn = DividedAttention(width, heads), DividedAttention(width, heads)
        self.mlp = nn.Sequential()
        self.mlp.add_module("fc1", nn.Linear(width, _MLP_RATIO * width))
        self.mlp.add_module("act", QuickGelu() if quick else nn.GELU())
        self.mlp.add_module("fc2", nn.Linear(_MLP_RATIO * width, width))
        self.alpha_timeattn = nn.Parameter(torch.zeros([])) if gated else None

    def forward(self, tokens: Tensor, frames: int) -> Tensor:
        """(B, 1 + F N, d) -> same."""
        over_time = self.timeattn(self.norm3(tokens), frames, "(b n) h f e")
        if self.alpha_timeattn is not None:
            over_time = self.alpha_timeattn.tanh() * over_time
        tokens = tokens + self.attn(self.norm1(tokens + over_time), frames, "(b f) h n e")
        return tokens + self.mlp(self.norm2(tokens))


class SpaceTimeTransformer(nn.Module):
    """Video ViT with divided attention.

    clip_start: made from a CLIP ViT, as LaViLa: a norm before the blocks, patches without bias,
    quick GELU. gated: see SpaceTimeBlock. eps: of the layer norms."""

    def __init__(
        self, shape: VitShape, frames: int, clip_start: bool, gated: bool, eps: float = 1e-6
    ) -> None:
        super().__init__()
        width, patch = shape.width, shape.patch
        project = nn.Conv2d(3, width, patch, patch, bias=not clip_start)
        self.patch_embed = nn.ModuleDict({"proj": project})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, shape.grid**2 + 1, width))
        self.temporal_embed = nn.Parameter(torch.zeros(1, frames, width))
        self.ln_pre = nn.LayerNorm(width) if clip_start else nn.Identity()
        self.blocks = nn.ModuleList(
            SpaceTimeBlock(width, shape.heads, eps, clip_start, gated) for _ in range(shape.depth)
        )
        self.norm = nn.LayerNorm(width, eps)

    def forward(self, clips: Tensor) -> Tensor:
        """(B, F, 3, S, S) -> the class token, (B, d). S must give the table's grid."""
        batch, frames = clips.shape[:2]
        maps = self.patch_embed["proj"](rearrange(clips, "b f c h w -> (b f) c h w"))
        patches = rearrange(maps, "(b f) d h w -> b f (h w) d", b=batch)
        patches = patches + self.pos_embed[:, None, 1:] + self.temporal_embed[:, :, None]
        first = (self.cls_token + self.pos_embed[:, :1]).expand(batch, -1, -1)
        tokens = self.ln_pre(torch.cat([first, rearrange(patches, "b f n d -> b (f n) d")], dim=1))
        for block in self.blocks:
            tokens = block(tokens, frames)
        return self.norm(tokens[:, 0])
