"""Transformers over frames of tokens, under the key names of UniVLA's published weights.

Pre-normalized blocks: attention within each frame, attention over the frames of each token (causal)
where the stack has one, feed-forward. Positions are fixed sinusoids over the tokens of a frame.
Axis letters: B batch, T frames, N tokens of a frame, D width, E heads.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


class SelfAttention(nn.Module):
    """Scaled dot-product attention; no biases but that of the output."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_k = nn.Linear(dim, dim, bias=False)
        self.to_v = nn.Linear(dim, dim, bias=False)
        self.to_out = nn.Sequential(nn.Linear(dim, dim))

    def forward(self, x: Tensor, causal: bool = False, seen: Tensor | None = None) -> Tensor:
        """x: (B, N, D). causal: token i sees tokens <= i. seen: bool (B, N), keys but padding."""
        parts = (self.to_q(x), self.to_k(x), self.to_v(x))
        q, k, v = (rearrange(part, "b n (e d) -> b e n d", e=self.heads) for part in parts)
        mask = None if seen is None else seen[:, None, None]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        return self.to_out(rearrange(out, "b e n d -> b n (e d)"))


class Block(nn.Module):
    """temporal: with attention over time between that over space and the feed-forward."""

    def __init__(self, dim: int, heads: int, temporal: bool) -> None:
        super().__init__()
        self.temporal = temporal
        self.spatial_attn = SelfAttention(dim, heads)
        if temporal:
            self.temporal_attn = SelfAttention(dim, heads)
            self.norm3 = nn.LayerNorm(dim)
        # an identity in the place of the dropout, whose rate is 0; keeps the published key names
        self.ffn = nn.Sequential(
            nn.Linear(dim, 4 * dim), nn.GELU(), nn.Identity(), nn.Linear(4 * dim, dim)
        )
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(self, x: Tensor, seen: Tensor | None) -> Tensor:
        """x: (B, T, N, D); seen: bool (B, N)."""
        frames, tokens = x.shape[1:3]
        x = rearrange(x, "b t n d -> (b t) n d")
        each = None if seen is None else seen.repeat_interleave(frames, dim=0)
        x = x + self.spatial_attn(self.norm1(x), seen=each)
        if self.temporal:
            x = rearrange(x, "(b t) n d -> (b n) t d", t=frames)
            x = x + self.temporal_attn(self.norm2(x), causal=True)
            x = rearrange(x, "(b n) t d -> (b t) n d", n=tokens)
        x = x + self.ffn((self.norm3 if self.temporal else self.norm2)(x))
        return rearrange(x, "(b t) n d -> b t n d", t=frames)


class Stack(nn.Module):
    """An input projection, positions, blocks and, if out_dim is given, an output projection."""

    def __init__(
        self, in_dim: int, dim: int, blocks: int, heads: int, temporal: bool, out_dim: int | None
    ) -> None:
        super().__init__()
        self.ffn = nn.Sequential(nn.LayerNorm(in_dim), nn.Linear(in_dim, dim), nn.LayerNorm(dim))
        self.transformer_blocks = nn.ModuleList(Block(dim, heads, temporal) for _ in range(blocks))
        self.out = nn.Identity() if out_dim is None else nn.Linear(dim, out_dim)

    def forward(self, x: Tensor, text: Tensor | None = None, seen: Tensor | None = None) -> Tensor:
        """x: (B, T, N, D); text: (B, L, width) put behind the tokens of each frame, without positions;
        seen: bool (B, N + L)."""
        x = self.ffn(x)
        x = x + sinusoids(x.shape[2], x.shape[3]).to(x)
        if text is not None:
            x = torch.cat((x, text[:, None].expand(-1, x.shape[1], -1, -1)), dim=2)
        for block in self.transformer_blocks:
            x = block(x, seen)
        return self.out(x)


def sinusoids(length: int, dim: int) -> Tensor:
    """float (length, dim): sin and cos of the position in turn (arxiv.org/abs/1706.03762)."""
    position = torch.arange(length).float()[:, None]
    angle = position * torch.exp(torch.arange(0, dim, 2).float() * -(math.log(10000.0) / dim))
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)[:, :dim]
