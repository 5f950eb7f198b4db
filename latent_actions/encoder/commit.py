"""The commit block: a transformer block whose attention follows a hard, row-wise token routing.

Every patch token is committed to one special token (the action token or a register). A special
token reads only the patches committed to it; with patch attention `block` a patch attends only
patches of the same commitment and its own special token. In this block, what is committed to a
register cannot reach the action token but through the routing choice itself; over several blocks a
patch that changes its group takes along what it has read.

B clips, N patches, R registers, S = 1 + R special_tokens, h heads, e head width, d = h e width.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latent_actions.encoder.attention import Block, Kernel, attend, gate_bias, merge_heads
from latent_actions.encoder.grouped import grouped_attention
from latent_actions.encoder.routing import Estimator, Routing, RoutingAssignments, route_tokens

PatchAttention = Literal["block", "full", "none"]
SpecialAttention = Literal["none", "registers_read_action", "full"]
Schedule = Literal["per_block", "once", "sticky"]
Before = Literal["idle", "read_all"]
RegisterPath = Literal["trunk", "own"]


@dataclass(frozen=True, kw_only=True)
class CommitConfig:
    """Structured token commitment."""

    # st_gumbel | st_argmax | topk | sparsemax | soft | none (off: a plain ViT; YAML reads off as no)
    estimator: Estimator = "st_gumbel"
    topk_ratio: float = 0.3  # patches of a clip that topk commits to the action token (BYOV: 0.3)
    registers: int = 4  # register tokens R that take what is not action; 0: all patches are action
    start: int = 2  # blocks before the first commit block; their special tokens stay as below
    pre_routing: Before = (
        "idle"  # special_tokens in those blocks: idle (untouched) | read_all (as any token)
    )
    patch_attention: PatchAttention = "block"  # block (own commitment) | full | none (patches stay)
    special_attention: SpecialAttention = "none"  # what special tokens read of each other
    # per_block (rows anew in each block) | once | sticky (the last rows add to the logits)
    schedule: Schedule = "per_block"
    sticky: float = 1.0  # weight of the last rows when sticky
    router_width: int = 64  # width of the row logits' inner product
    # what registers are read from: trunk (which they share with the action token) | own (pixels of
    # the patches left to them, by weights of their own, which loss.scene teaches)
    register_encoder: RegisterPath = "trunk"
    # added to the action logit per standard deviation of |frame difference|
    motion_prior: float = 0.0

    def __post_init__(self) -> None:
        if self.registers < 0 or self.start < 0 or self.router_width < 1:
            raise ValueError("registers and start must be >= 0 and router_width >= 1")
        if self.estimator == "topk" and self.registers == 0:
            raise ValueError("topk needs at least one register for the patches that it leaves")
        if not 0 < self.topk_ratio < 1:
            raise ValueError(f"topk_ratio must be in (0, 1), got {self.topk_ratio}")


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
        self.action_bias = nn.Parameter(torch.zeros(1))  # FSDP shards no scalars
        self.null_key = nn.Parameter(torch.zeros(heads, 1, width // heads))
        self.null_value = nn.Parameter(torch.zeros(heads, 1, width // heads))

    def forward(
        self,
        patches: Tensor,
        special_tokens: Tensor,
        routing: Routing,
        motion: Tensor | None = None,
        last: RoutingAssignments | None = None,
    ) -> tuple[Tensor, Tensor, RoutingAssignments]:
        """patches (B, N, d), special_tokens (B, S, d), motion (B, N) or None, last rows -> both updated,
        rows.
        """
        rows = last if last is not None and self.config.schedule == "once" else None
        if rows is None:
            logits = self.row_logits(patches, special_tokens, motion, last)
            rows = route_tokens(logits, self.config.estimator, routing, self.config.topk_ratio)
        special_tokens, patches = self._mix(patches, special_tokens, rows)
        return patches, special_tokens, rows

    def row_logits(
        self,
        patches: Tensor,
        special_tokens: Tensor,
        motion: Tensor | None,
        last: RoutingAssignments | None,
    ) -> Tensor:
        """Logits of each patch (row) for each special (column), fp32: (B, N, S)."""
        with torch.autocast(patches.device.type, enabled=False):
            row = self.row(self.norm_row(patches.float()))
            column = self.column(self.norm_column(special_tokens.float()))
            logits = row @ column.transpose(1, 2) * self.config.router_width**-0.5
            action = self.action_bias
            if motion is not None and self.config.motion_prior:
                action = action + self.config.motion_prior * motion
            logits = torch.cat([logits[..., :1] + action[..., None], logits[..., 1:]], dim=-1)
            if last is not None and self.config.schedule == "sticky":
                logits = logits + self.config.sticky * last.used.detach()
        return logits

    def _mix(
        self, patches: Tensor, special_tokens: Tensor, rows: RoutingAssignments
    ) -> tuple[Tensor, Tensor]:
        """Gated read of the special_tokens, committed attention of the patches, MLP: (B, S, d), (B, N,
        d).
        """
        count = special_tokens.shape[1]
        tokens = torch.cat([special_tokens, patches], dim=1)
        packed = self.project(tokens)
        q, k, v = self.split_heads(packed)
        read = merge_heads(self._read(q, k, v, rows)).to(packed.dtype)
        if self.config.patch_attention == "none":
            special_tokens = special_tokens + self.out(read)
            return special_tokens + self.mlp(self.norm_mlp(special_tokens)), patches
        if self.config.patch_attention == "block" and rows.hard:
            kept = grouped_attention(packed, _groups(rows), self.heads, self.kernel)[:, count:]
        else:
            bias = _block_bias(rows) if self.config.patch_attention == "block" else None
            kept = merge_heads(attend(q[:, :, count:], k, v, bias, self.kernel))
        tokens = tokens + self.out(torch.cat([read, kept.to(read.dtype)], dim=1))
        tokens = tokens + self.mlp(self.norm_mlp(tokens))
        return tokens[:, :count], tokens[:, count:]

    def _read(self, q: Tensor, k: Tensor, v: Tensor, rows: RoutingAssignments) -> Tensor:
        """What the special_tokens read (fp32). q k v (B, h, S + N, e) -> (B, h, S, e)."""
        count = rows.used.shape[-1]
        with torch.autocast(q.device.type, enabled=False):
            q, k, v = q[:, :, :count].float(), k.float(), v.float()
            others = _special_gate(count, self.config.special_attention, rows.used)
            gate = torch.cat([others, rows.used.transpose(1, 2)], dim=-1)
            null = self.null_key.float(), self.null_value.float()
            return gated_read(q, k, v, gate[:, None], *null, hard=rows.hard)


def gated_read(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gate: Tensor,
    null_key: Tensor,
    null_value: Tensor,
    *,
    hard: bool = True,
) -> Tensor:
    """Gated attention: r = sum_i g_i e_i v_i / sum_i g_i e_i with e_i = exp(q k_i / sqrt(e) - c).

    q (B, h, S, e), k v (B, h, M, e), gate (B, 1, S, M); the null key and value (h, 1, e) are always
    open, so that the set is never empty. c is the maximum over all keys, gated or not, so a closed
    gate (0) still gets a gradient: the router learns what reading that key would have done (a mask
    of -inf would not tell it).

    That gradient is e_i (v_i - r) / sum_i g_i e_i, which is without bound when the open keys are
    the unlikely ones; gates of 0 and 1 (hard) get e_i (v_i - r) / sum_i e_i instead, the sum over
    all keys: what reading key i would do beside all of them.
    """
    q = q * q.shape[-1] ** -0.5
    logits = torch.cat([q @ null_key.transpose(-1, -2), q @ k.transpose(-1, -2)], dim=-1)
    weight = (logits - logits.detach().amax(dim=-1, keepdim=True)).exp()
    opened = F.pad(gate.detach() if hard else gate, (1, 0), value=1.0) * weight
    share = opened / opened.sum(dim=-1, keepdim=True).clamp_min(1e-30)
    read = share[..., :1] * null_value + share[..., 1:] @ v
    if not hard or not gate.requires_grad:
        return read
    change = (gate - gate.detach()) * (weight / weight.sum(dim=-1, keepdim=True))[..., 1:].detach()
    return read + change @ v.detach() - change.sum(dim=-1, keepdim=True) * read.detach()


def _special_gate(count: int, kind: SpecialAttention, like: Tensor) -> Tensor:
    """Which special_tokens a special reads: (B, S, S) of 0 and 1."""
    gate = torch.zeros(count, count, dtype=like.dtype, device=like.device)
    if kind == "registers_read_action":
        gate[1:, 0] = 1
    if kind == "full":
        gate[:] = 1
    return gate.expand(len(like), -1, -1)


def _groups(rows: RoutingAssignments) -> Tensor:
    """Group of [special_tokens, patches] under hard rows: a special and what is committed to it: (B, S +
    N).
    """
    special_tokens = torch.arange(rows.used.shape[-1], device=rows.used.device)
    return torch.cat([special_tokens.expand(len(rows.used), -1), rows.used.argmax(dim=-1)], dim=1)


def _block_bias(rows: RoutingAssignments) -> Tensor:
    """Log gate of patches for [special_tokens, patches] under soft rows: (B, 1, N, S + N)."""
    used = rows.used
    return gate_bias(torch.cat([used, used @ used.transpose(1, 2)], dim=-1))[:, None]
