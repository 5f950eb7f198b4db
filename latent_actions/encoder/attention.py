"""Attention and the pre-norm transformer block: the plain blocks, and what commit blocks extend.

B clips, N queries, M keys, h heads, e head width, d = h e width.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

# matmul is the faster one in bf16 on a CPU, sdpa in fp32 and on a GPU
Kernel = Literal["matmul", "sdpa"]
_SCALE = 2 * math.sqrt(2 / math.pi)  # of the GELU


def attend(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, kernel: Kernel = "matmul"
) -> Tensor:
    """softmax(q k / sqrt(e) + bias) v: (B, h, N, e), (B, h, M, e) x2, bias broadcast to (B, h, N,
    M).
    """
    if kernel == "sdpa":
        mask = None if bias is None else bias.to(q.dtype)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if bias is not None:
        logits = logits + bias.to(logits.dtype)
    return F.softmax(logits, dim=-1) @ v


def split_heads(packed: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """(B, N, 3 d) -> queries, keys and values, each (B, h, N, e), in this order in memory: a product
    would copy them into it, one by one and slower."""
    q, k, v = rearrange(packed, "b n (three h e) -> three b h n e", three=3, h=heads).contiguous()
    return q, k, v


def merge_heads(values: Tensor) -> Tensor:
    """(B, h, N, e) -> (B, N, h e)."""
    return rearrange(values, "b h n e -> b n (h e)")


class TanhGELU(nn.Module):
    """x Phi(x) with the normal's Phi(x) by tanh (Hendrycks & Gimpel 2016, arxiv.org/abs/1606.08415)."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape. Without gradients on a CPU by x sigmoid(2 u), of u the argument of tanh: half
        the time of torch's own kernel."""
        if torch.is_grad_enabled() or x.device.type != "cpu":
            return F.gelu(x, approximate="tanh")
        scale = torch.tensor(_SCALE, dtype=x.dtype)
        return torch.addcmul(scale, x, x, value=0.044715 * _SCALE).mul_(x).sigmoid_().mul_(x)


class Block(nn.Module):
    """Pre-norm self-attention and MLP over all tokens (an ordinary ViT block)."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, kernel: Kernel) -> None:
        super().__init__()
        self.heads = heads
        self.kernel: Kernel = kernel
        hidden = int(width * mlp_ratio)
        self.norm_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), TanhGELU(), nn.Linear(hidden, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, d) -> (B, N, d)."""
        q, k, v = split_heads(self.project(tokens), self.heads)
        return self.add_mlp(tokens + self.out(merge_heads(attend(q, k, v, kernel=self.kernel))))

    def project(self, tokens: Tensor) -> Tensor:
        """Queries, keys and values of normalized tokens: (B, N, d) -> (B, N, 3 d)."""
        return self.qkv(self.norm_attention(tokens))

    def add_mlp(self, tokens: Tensor) -> Tensor:
        """The second half of the block: (B, N, d) -> (B, N, d)."""
        return tokens + self.mlp(self.norm_mlp(tokens))
