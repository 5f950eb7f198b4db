"""The commit block: a transformer block whose attention follows a hard, row-wise token routing.

Every patch token is committed to one special token (the action token or a register). A special
token reads only the patches committed to it; with patch attention `block` a patch attends only
patches of the same commitment and its own special token. What is committed to a register cannot
reach the action token but through the routing choice itself.

B clips, N patches, R registers, S = 1 + R specials, h heads, e head width, d = h e width.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from latent_actions.invact.attention import Block, Kernel, attend, gate_bias, merge_heads
from latent_actions.invact.routing import Estimator, Routing, Rows, choose_rows

PatchAttention = Literal["block", "full", "none"]
SpecialAttention = Literal["none", "registers_read_action", "full"]
Schedule = Literal["per_block", "once", "sticky"]


@dataclass(frozen=True, kw_only=True)
class CommitConfig:
    """Structured token commitment."""

    estimator: Estimator = "st_gumbel"  # st_gumbel | st_argmax | soft | none (a plain ViT)
    registers: int = 4  # register tokens R that take what is not action
    start: int = 2  # blocks before the first commit block; their special tokens stay as below
    before: Literal["idle", "read_all"] = (
        "idle"  # specials in those blocks: untouched, or ordinary tokens
    )
    patch_attention: PatchAttention = "block"  # block (own commitment) | full | none (patches stay)
    special_attention: SpecialAttention = "none"  # what special tokens read of each other
    schedule: Schedule = (
        "per_block"  # rows anew per block | once | sticky (last rows add to logits)
    )
    sticky: float = 1.0  # weight of the last rows when sticky
    router_width: int = 64  # width of the row logits' inner product
    motion_prior: float = (
        0.0  # added to the action logit per standard deviation of |frame difference|
    )

    def __post_init__(self) -> None:
        if self.registers < 0 or self.start < 0 or self.router_width < 1:
            raise ValueError("registers and start must be >= 0 and router_width >= 1")
        if self.estimator != "none" and self.registers == 0:
            raise ValueError(
                "commitment needs at least one register; use estimator none for a plain ViT"
            )


class CommitBlock(Block):
    """A ViT block (same weights and shapes) with committed attention, a router and a null key."""

    def __init__(
        self, width: int, heads: int, mlp_ratio: float, kernel: Kernel, config: CommitConfig
    ) -> None:
        super().__init__(width, heads, mlp_ratio, kernel)
        self.config = config
        self.norm_row = nn.LayerNorm(width)
        self.norm_column = nn.LayerNorm(width)
        self.row = nn.Linear(width, config.router_width, bias=False)
        self.column = nn.Linear(width, config.router_width, bias=False)
        self.action_bias = nn.Parameter(torch.zeros(()))
        self.null_key = nn.Parameter(torch.zeros(heads, 1, width // heads))
        self.null_value = nn.Parameter(torch.zeros(heads, 1, width // heads))

    def forward(
        self,
        patches: Tensor,
        specials: Tensor,
        routing: Routing,
        motion: Tensor | None = None,
        last: Rows | None = None,
    ) -> tuple[Tensor, Tensor, Rows]:
        """patches (B, N, d), specials (B, S, d), motion (B, N) or None, last rows -> both updated,
        rows.
        """
        rows = last if last is not None and self.config.schedule == "once" else None
        if rows is None:
            logits = self.row_logits(patches, specials, motion, last)
            rows = choose_rows(logits, self.config.estimator, routing)
        specials, patches = self._mix(patches, specials, rows)
        return patches, specials, rows

    def row_logits(
        self, patches: Tensor, specials: Tensor, motion: Tensor | None, last: Rows | None
    ) -> Tensor:
        """Logits of each patch (row) for each special (column), fp32: (B, N, S)."""
        with torch.autocast(patches.device.type, enabled=False):
            row = self.row(self.norm_row(patches.float()))
            column = self.column(self.norm_column(specials.float()))
            logits = row @ column.transpose(1, 2) * self.config.router_width**-0.5
            action = self.action_bias
            if motion is not None and self.config.motion_prior:
                action = action + self.config.motion_prior * motion
            logits = torch.cat([logits[..., :1] + action[..., None], logits[..., 1:]], dim=-1)
            if last is not None and self.config.schedule == "sticky":
                logits = logits + self.config.sticky * last.used.detach()
        return logits

    def _mix(self, patches: Tensor, specials: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        """Gated read of the specials, committed attention of the patches, MLP: (B, S, d), (B, N,
        d).
        """
        count = specials.shape[1]
        tokens = torch.cat([specials, patches], dim=1)
        q, k, v = self.project(tokens)
        read = self._read(q, k, v, rows.used)
        if self.config.patch_attention == "none":
            specials = specials + self.out(merge_heads(read.to(q.dtype)))
            return specials + self.mlp(self.norm_mlp(specials)), patches
        bias = None
        if self.config.patch_attention == "block":
            bias = _block_bias(rows)[:, None]
        kept = attend(q[:, :, count:], k, v, bias, self.kernel)
        mixed = torch.cat([read.to(kept.dtype), kept], dim=2)
        tokens = tokens + self.out(merge_heads(mixed))
        tokens = tokens + self.mlp(self.norm_mlp(tokens))
        return tokens[:, :count], tokens[:, count:]

    def _read(self, q: Tensor, k: Tensor, v: Tensor, used: Tensor) -> Tensor:
        """What the specials read (fp32). q k v (B, h, S + N, e), used (B, N, S) -> (B, h, S, e)."""
        count = used.shape[-1]
        with torch.autocast(q.device.type, enabled=False):
            q, k, v = q[:, :, :count].float(), k.float(), v.float()
            null = [t.float().expand(len(q), -1, -1, -1) for t in (self.null_key, self.null_value)]
            others = _special_gate(count, self.config.special_attention, used)
            gate = torch.cat(
                [torch.ones_like(others[..., :1]), others, used.transpose(1, 2)], dim=-1
            )
            keys, values = torch.cat([null[0], k], dim=2), torch.cat([null[1], v], dim=2)
            return gated_read(q, keys, values, gate[:, None])


def gated_read(q: Tensor, k: Tensor, v: Tensor, gate: Tensor) -> Tensor:
    """Gated attention: sum_i g_i e_i v_i / sum_i g_i e_i with e_i = exp(q k_i / sqrt(e) - c).

    q (B, h, S, e), k v (B, h, M, e), gate (B, 1, S, M). c is the maximum over all keys, gated or
    not, so a closed gate (0) still gets a gradient: the router learns what reading that key would
    have done (a mask of -inf would not tell it).
    """
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    weight = gate * (logits - logits.detach().amax(dim=-1, keepdim=True)).exp()
    return (weight / weight.sum(dim=-1, keepdim=True).clamp_min(1e-30)) @ v


def _special_gate(count: int, kind: SpecialAttention, like: Tensor) -> Tensor:
    """Which specials a special reads: (B, S, S) of 0 and 1."""
    gate = torch.zeros(count, count, dtype=like.dtype, device=like.device)
    if kind == "registers_read_action":
        gate[1:, 0] = 1
    if kind == "full":
        gate[:] = 1
    return gate.expand(len(like), -1, -1)


def _block_bias(rows: Rows) -> Tensor:
    """Log gate of patches for [specials, patches]: own special, own group: (B, N, S + N)."""
    used = rows.used
    gate = torch.cat([used, used @ used.transpose(1, 2)], dim=-1)
    return gate_bias(gate, rows.hard)
