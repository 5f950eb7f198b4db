"""One transformer for all ViT-shaped baselines: images, or video with divided attention.

Parameter names are those shared by timm, DINO, DINOv2 and the frozen-in-time family (cls_token,
pos_embed, patch_embed.proj, blocks.N.attn.qkv, ...), so published files load without renaming.

B batch, F frames, N patches of a frame, d width, h heads, e head width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

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
    patch: int = 16  # pixels of a token's side
    grid: int = 14  # side of the table of positions, in tokens
    registers: int = 0  # extra tokens behind the class token
    class_position: bool = True  # the table of positions has a row for the class token
    layer_scale: bool = False  # learned gain on every residual branch (DINOv2)
    antialias: bool = True  # how positions are resized: timm (true) or DINO (false)
    eps: float = 1e-6  # of the layer norms

    def __post_init__(self) -> None:
        if self.width % self.heads or min(self.depth, self.patch, self.grid) < 1:
            raise ValueError(f"width must be a multiple of heads, sizes at least 1: {self}")


class Attention(nn.Module):
    """Multi-head attention, joint or divided over space or time."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Every token sees every token: (B, M, d) -> (B, M, d)."""
        return self._out(F.scaled_dot_product_attention(*self._split(tokens)))

    def divided(self, tokens: Tensor, frames: int, groups: str) -> Tensor:
        """(B, 1 + F N, d) -> same. The class token sees all; a patch sees the class token and its
        group. groups: "(b f) h n e" for its frame, "(b n) h f e" for its place over time
        (frozen in time, arxiv.org/abs/2104.00650).
        """
        q, k, v = self._split(tokens)
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
        return self._out(torch.cat([first, rest], dim=2))

    def _split(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = rearrange(self.qkv(tokens), "b m (x h e) -> x b h m e", x=3, h=self.heads)
        return q, k, v

    def _out(self, values: Tensor) -> Tensor:
        return self.proj(rearrange(values, "b h m e -> b m (h e)"))


class QuickGelu(nn.Module):
    """CLIP's cheap GELU."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class Mlp(nn.Module):
    """Two linear maps around an activation."""

    def __init__(self, width: int, quick: bool = False) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, _MLP_RATIO * width)
        self.act = QuickGelu() if quick else nn.GELU()
        self.fc2 = nn.Linear(_MLP_RATIO * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class LayerScale(nn.Module):
    """A learned gain a channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), 1e-5))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, width: int, heads: int, eps: float, layer_scale: bool = False) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps)
        self.attn = Attention(width, heads)
        self.ls1 = LayerScale(width) if layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(width, eps)
        self.mlp = Mlp(width)
        self.ls2 = LayerScale(width) if layer_scale else nn.Identity()

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, M, d) -> (B, M, d)."""
        tokens = tokens + self.ls1(self.attn(self.norm1(tokens)))
        return tokens + self.ls2(self.mlp(self.norm2(tokens)))


class SpaceTimeBlock(nn.Module):
    """Time attention feeds space attention, whose residual starts from the block's input.

    gated: the time branch is scaled by tanh of a learned number (LaViLa).
    """

    def __init__(self, width: int, heads: int, eps: float, quick: bool, gated: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps)
        self.attn = Attention(width, heads)
        self.timeattn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps)
        self.mlp = Mlp(width, quick)
        self.norm3 = nn.LayerNorm(width, eps)
        self.alpha_timeattn = nn.Parameter(torch.zeros([])) if gated else None

    def forward(self, tokens: Tensor, frames: int) -> Tensor:
        """(B, 1 + F N, d) -> same."""
        over_time = self.timeattn.divided(self.norm3(tokens), frames, "(b n) h f e")
        if self.alpha_timeattn is not None:
            over_time = self.alpha_timeattn.tanh() * over_time
        mixed = self.norm1(tokens + over_time)
        tokens = tokens + self.attn.divided(mixed, frames, "(b f) h n e")
        return tokens + self.mlp(self.norm2(tokens))


class PatchEmbed(nn.Module):
    """Non-overlapping patches: (B, 3, H, W) -> (B, N, d)."""

    def __init__(self, width: int, patch: int, bias: bool = True) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, patch, bias=bias)

    def forward(self, images: Tensor) -> Tensor:
        return rearrange(self.proj(images), "b d h w -> b (h w) d")


class VisionTransformer(nn.Module):
    """ViT of an image, of any size that patches tile."""

    def __init__(self, shape: VitShape) -> None:
        super().__init__()
        self.shape = shape
        self.patch_embed = PatchEmbed(shape.width, shape.patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, shape.width))
        if shape.registers:
            self.reg_token = nn.Parameter(torch.zeros(1, shape.registers, shape.width))
        rows = shape.grid**2 + shape.class_position
        self.pos_embed = nn.Parameter(torch.zeros(1, rows, shape.width))
        self.blocks = nn.ModuleList(
            Block(shape.width, shape.heads, shape.eps, shape.layer_scale)
            for _ in range(shape.depth)
        )
        self.norm = nn.LayerNorm(shape.width, shape.eps)

    def forward(self, images: Tensor, taps: Sequence[int] = ()) -> tuple[Tensor, list[Tensor]]:
        """(B, 3, H, W) -> normalized tokens (B, 1 + R + N, d), and the raw outputs of the blocks
        in `taps`.
        """
        tokens = self.patch_embed(images)
        rows, columns = (side // self.shape.patch for side in images.shape[-2:])
        tokens = tokens + self._positions(rows, columns)
        first = self.cls_token
        if self.shape.class_position:
            first = first + self.pos_embed[:, :1]
        if self.shape.registers:
            first = torch.cat([first, self.reg_token], dim=1)
        tokens = torch.cat([first.expand(len(tokens), -1, -1), tokens], dim=1)
        kept = {}
        for index, block in enumerate(self.blocks):
            tokens = kept[index] = block(tokens)
        return self.norm(tokens), [kept[index] for index in taps]

    def _positions(self, rows: int, columns: int) -> Tensor:
        """Positions of a grid, (1, rows * columns, d), resized if it is not the table's."""
        grid = self.shape.grid
        table = self.pos_embed[:, int(self.shape.class_position) :]
        if (rows, columns) == (grid, grid):
            return table
        image = rearrange(table, "b (h w) d -> b d h w", h=grid)
        if self.shape.antialias:
            image = F.interpolate(image, (rows, columns), mode="bicubic", antialias=True)
        else:
            # DINO's own form: the 0.1 keeps the rounded size right and shifts the samples a little
            scale = ((rows + 0.1) / grid, (columns + 0.1) / grid)
            image = F.interpolate(image, scale_factor=scale, mode="bicubic")
        return rearrange(image, "b d h w -> b (h w) d")


class SpaceTimeTransformer(nn.Module):
    """Video ViT with divided attention (frozen in time, arxiv.org/abs/2104.00650).

    clip_start: made from a CLIP ViT, as LaViLa: a norm before the blocks, patches without bias,
    quick GELU. gated: see SpaceTimeBlock.
    """

    def __init__(self, shape: VitShape, frames: int, clip_start: bool, gated: bool) -> None:
        super().__init__()
        width = shape.width
        self.patch_embed = PatchEmbed(width, shape.patch, bias=not clip_start)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, shape.grid**2 + 1, width))
        self.temporal_embed = nn.Parameter(torch.zeros(1, frames, width))
        self.ln_pre = nn.LayerNorm(width) if clip_start else nn.Identity()
        self.blocks = nn.ModuleList(
            SpaceTimeBlock(width, shape.heads, shape.eps, clip_start, gated)
            for _ in range(shape.depth)
        )
        self.norm = nn.LayerNorm(width, shape.eps)

    def forward(self, clips: Tensor) -> Tensor:
        """(B, F, 3, S, S) -> the class token, (B, d). S must give the table's grid."""
        batch, frames = clips.shape[:2]
        patches = self.patch_embed(rearrange(clips, "b f c h w -> (b f) c h w"))
        patches = rearrange(patches, "(b f) n d -> b f n d", b=batch)
        patches = patches + self.pos_embed[:, None, 1:] + self.temporal_embed[:, :, None]
        first = (self.cls_token + self.pos_embed[:, :1]).expand(batch, -1, -1)
        tokens = self.ln_pre(torch.cat([first, rearrange(patches, "b f n d -> b (f n) d")], dim=1))
        for block in self.blocks:
            tokens = block(tokens, frames)
        return self.norm(tokens[:, 0])
