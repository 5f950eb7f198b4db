"""The transformer of LAQ: position generator, cosine attention, gated feed-forward.

Axis letters: B batch, T frames, H W patch rows and columns, N tokens, D width, E heads.
Parameter names are those of the published weights (LAPA, arxiv.org/abs/2410.11758; the blocks stem
from Phenaki, arxiv.org/abs/2210.02399).
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

ATTENTION_SCALE = 8.0  # fixed temperature of the cosine attention


class GainNorm(nn.Module):
    """Layer normalization with a learned gain; its offset `beta` is a constant zero buffer."""

    beta: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))
        self.register_buffer("beta", torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.gamma, self.beta)


class PositionGenerator(nn.Module):
    """PEG: a depth-wise 3x3x3 convolution over (T, H, W), causal in T, zero padded in H and W."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dsconv = nn.Conv3d(dim, dim, 3, groups=dim)

    def forward(self, grid: Tensor) -> Tensor:
        """grid: (B, T, H, W, D) -> same shape.

        One or two frames see at most two of the three time taps: 2-D convolutions on the
        channels-last grid give the same sums several times faster on a CPU."""
        frames = grid.shape[1]
        if frames > 2:
            padded = F.pad(rearrange(grid, "b t h w d -> b d t h w"), (1, 1, 1, 1, 2, 0))
            return rearrange(self.dsconv(padded), "b d t h w -> b t h w d")
        now = self._tap(grid, 2, self.dsconv.bias)
        if frames == 1:
            return now
        before = self._tap(grid[:, :1], 1, None)
        return torch.cat((now[:, :1], now[:, 1:] + before), dim=1)

    def _tap(self, grid: Tensor, tap: int, bias: Tensor | None) -> Tensor:
        images = rearrange(grid, "b t h w d -> (b t) d h w")
        weight = self.dsconv.weight[:, :, tap]
        images = F.conv2d(images, weight, bias, padding=1, groups=self.dsconv.groups)
        return rearrange(images, "(b t) d h w -> b t h w d", t=grid.shape[1])


class Attention(nn.Module):
    """Cosine attention with learned per-dimension scales of queries and keys.

    null_pairs: learned key/value pairs put before the keys (they let a query attend to nothing).
    normalize_kv: keys and values of self-attention see the normalized stream too; the published
    code normalizes only the queries' input. causal: token i sees tokens <= i."""

    def __init__(
        self, *, dim: int, dim_head: int, heads: int, null_pairs: int, normalize_kv: bool,
        causal: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        inner = dim_head * heads
        self.heads, self.normalize_kv, self.causal = heads, normalize_kv, causal
        null_kv = torch.randn(heads, 2 * null_pairs, dim_head)
        self.null_kv = nn.Parameter(null_kv, requires_grad=null_pairs > 0)
        self.q_scale = nn.Parameter(torch.ones(dim_head))
        self.k_scale = nn.Parameter(torch.ones(dim_head))
        self.norm = GainNorm(dim)
        self.context_norm = GainNorm(dim)
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_kv = nn.Linear(dim, inner * 2, bias=False)
        self.to_out = nn.Linear(inner, dim, bias=False)

    def forward(
        self, x: Tensor, bias: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        """x: (B, N, D); bias: (E, N, N) added to the logits; context: (B, M, D), None for self."""
        queries = self.norm(x)
        source = queries if self.normalize_kv else x
        if context is not None:
            source = self.context_norm(context)
        q = rearrange(self.to_q(queries), "b n (e d) -> b e n d", e=self.heads)
        k, v = rearrange(self.to_kv(source), "b n (two e d) -> two b e n d", two=2, e=self.heads)
        if self.null_kv.shape[1]:
            null = self.null_kv.to(k.dtype).expand(len(x), -1, -1, -1)
            null_k, null_v = rearrange(null, "b e (n two) d -> two b e n d", two=2)
            k, v = torch.cat((null_k, k), dim=2), torch.cat((null_v, v), dim=2)
        q = F.normalize(q, dim=-1) * (self.q_scale * ATTENTION_SCALE)
        k = F.normalize(k, dim=-1) * self.k_scale
        is_pair = bias is None and q.shape[2] == k.shape[2] == 2
        out = _attend_pair(q, k, v, self.causal) if is_pair else self._attend(q, k, v, bias)
        return self.to_out(rearrange(out, "b e n d -> b n (e d)"))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        logits = q @ k.transpose(-1, -2)
        if bias is not None:
            logits = logits + bias
        if self.causal:
            seen = torch.ones(logits.shape[-2:], dtype=torch.bool, device=q.device).tril()
            logits = logits.masked_fill(~seen, float("-inf"))
        return logits.softmax(dim=-1).to(v.dtype) @ v


def _attend_pair(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """Attention over two tokens without matrix products: many 2x2 products are slow on a CPU.

    The softmax of two logits is a sigmoid of their difference. q, k, v: (B, E, 2, D)."""
    difference = k[:, :, 1:] - k[:, :, :1]
    second = torch.sigmoid((q * difference).sum(dim=-1, keepdim=True)).to(v.dtype)
    if causal:
        second = torch.cat((torch.zeros_like(second[:, :, :1]), second[:, :, 1:]), dim=2)
    return v[:, :, :1] + second * (v[:, :, 1:] - v[:, :, :1])


class GatedGelu(nn.Module):
    """GEGLU (arxiv.org/abs/2002.05202): the second half of the channels gates the first."""

    def forward(self, x: Tensor) -> Tensor:
        value, gate = x.chunk(2, dim=-1)
        return F.gelu(gate) * value


def feed_forward(dim: int) -> nn.Sequential:
    """LayerNorm, Linear, GEGLU, Linear with inner width floor(8/3 dim) and no biases."""
    inner = int(4 * (2 / 3) * dim)
    return nn.Sequential(
        nn.LayerNorm(dim),
        nn.Linear(dim, inner * 2, bias=False),
        GatedGelu(),
        nn.Identity(),  # the place of the dropout, whose rate is 0; keeps the published key names
        nn.Linear(inner, dim, bias=False),
    )


class GridView:
    """The two maps between the tokens of a stack and PEG's (B, T, H, W, D) grid.

    kind: "space" for tokens ((b t), (h w)); "time" for tokens ((b h w), t); "time_scrambled" reads
    the buffer of the latter as if it were ordered (b, t, h, w), as the published code does."""

    PATTERNS: ClassVar[dict[str, tuple[str, str]]] = {
        "space": ("(b t) (h w) d", "b t h w d"),
        "time": ("(b h w) t d", "b t h w d"),
        # two different axis orders over one buffer: rows of the scrambled grid mix space and time
        "time_scrambled": ("(b t h w) d", "b t h w d"),
    }

    def __init__(self, kind: str, frames: int, height: int, width: int) -> None:
        self.kind, self.frames = kind, frames
        self.flat, self.grid = self.PATTERNS[kind]
        self.sizes = {"t": frames, "h": height, "w": width}

    def see(self, tokens: Tensor) -> Tensor:
        """Tokens of the stack -> (B, T, H, W, D)."""
        if self.kind == "time_scrambled":
            tokens = rearrange(tokens, "n t d -> (n t) d")
        return rearrange(tokens, f"{self.flat} -> {self.grid}", **self.sizes)

    def back(self, grid: Tensor) -> Tensor:
        """(B, T, H, W, D) -> tokens of the stack."""
        tokens = rearrange(grid, f"{self.grid} -> {self.flat}", **self.sizes)
        if self.kind == "time_scrambled":
            return rearrange(tokens, "(n t) d -> n t d", t=self.frames)
        return tokens


class Transformer(nn.Module):
    """Layers of PEG, self-attention, cross-attention if `cross`, feed-forward, all residual."""

    def __init__(
        self, *, dim: int, depth: int, dim_head: int, heads: int, cross: bool, normalize_kv: bool,
        causal: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        shape = {"dim": dim, "dim_head": dim_head, "heads": heads}
        self.layers = nn.ModuleList()
        for _ in range(depth):
            attend = Attention(**shape, null_pairs=0, normalize_kv=normalize_kv, causal=causal)
            attend.context_norm.requires_grad_(False)  # never used; the key is published
            parts = [PositionGenerator(dim), attend, None, feed_forward(dim)]
            if cross:
                parts[2] = Attention(**shape, null_pairs=2, normalize_kv=True, causal=False)
            self.layers.append(nn.ModuleList(parts))
        self.norm_out = GainNorm(dim)

    def forward(
        self, x: Tensor, grid: GridView, bias: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        """x: (B', N, D) tokens; grid: how PEG sees them as (B, T, H, W, D)."""
        for layer in self.layers:
            peg, attend, cross, feed = layer  # type: ignore[misc]
            x = grid.back(peg(grid.see(x))) + x
            x = attend(x, bias=bias) + x
            if cross is not None and context is not None:
                x = cross(x, context=context) + x
            x = feed(x) + x
        return self.norm_out(x)


class RelativePositionBias(nn.Module):
    """Continuous position bias (Swin V2, arxiv.org/abs/2111.09883): log offsets to biases."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        layers = [nn.Sequential(nn.Linear(n, dim), nn.LeakyReLU(0.1)) for n in (2, dim)]
        self.net = nn.ModuleList([*layers, nn.Linear(dim, heads)])

    def forward(self, height: int, width: int) -> Tensor:
        """-> (E, N, N) with N = height * width, in row-major order.

        The network sees each distinct offset once; the N x N table gathers from those."""
        device = next(self.parameters()).device
        rows = torch.arange(1 - height, height, device=device)
        columns = torch.arange(1 - width, width, device=device)
        offsets = torch.cartesian_prod(rows, columns).float()
        bias = offsets.sign() * torch.log1p(offsets.abs())
        for layer in self.net:
            bias = layer(bias)
        # which distinct offset each pair of places has: int64 (N, N)
        places = torch.cartesian_prod(rows[height - 1 :], columns[width - 1 :])
        row, column = (places[:, None] - places[None]).unbind(-1)
        table = (row + height - 1) * (2 * width - 1) + column + width - 1
        return rearrange(bias[table], "i j e -> e i j")
