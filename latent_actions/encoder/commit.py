"""The commit block: a transformer block whose attention follows a hard token-to-slot assignment.

Every patch token is committed to one special token (the action token or a register). A special
token reads only the patches committed to it; with patch attention `block` a patch attends only
patches of the same commitment and its own special token. In this block, what is committed to a
register reaches the action token only through the routing choice itself; over several blocks a patch
that changes its group takes along what it has read.

B clips, N patches, R registers, S = 1 + R special tokens, h heads, e head width, d = h e width.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from latent_actions.encoder.attention import Block, Kernel, attend, merge_heads, split_heads
from latent_actions.encoder.grouped import committed_attention, grouped_attention, is_short
from latent_actions.encoder.routing import Estimator, Routing, RoutingAssignments, route_tokens

_SMALLEST_GATE = 1e-6  # of soft gates: keeps the gradient of their logarithm finite


@dataclass(frozen=True, kw_only=True)
class CommitConfig:
    """Structured token commitment."""

    # st_gumbel | st_argmax | topk | soft | none (off: a plain ViT; YAML reads off as no)
    estimator: Estimator = "st_gumbel"
    topk_ratio: float = 0.3  # patches of a clip that topk commits to the action token (BYOV: 0.3)
    registers: int = 4  # register tokens R that take what is not action; 0: all patches are action
    start: int = 2  # blocks before the first commit block; their special tokens stay as below
    # special tokens in those blocks: idle (untouched) | joint (they attend, as any token)
    pre_routing: Literal["idle", "joint"] = "idle"
    # what patches attend: block (own commitment) | full (all) | none (patches stay)
    patch_attention: Literal["block", "full", "none"] = "block"
    # per_block (patches are routed anew in each block) | once (as in the first commit block: embeds a
    # third faster) | once_in_eval (per_block in training, once elsewhere: as fast)
    schedule: Literal["per_block", "once", "once_in_eval"] = "once_in_eval"
    router_width: int = 64  # width of the router's inner product
    # what registers are read by: shared (the weights of the action token) | separate (a network of
    # their own, from the pixels of the patches left to them, which loss.scene teaches)
    register_encoder: Literal["shared", "separate"] = "shared"
    # added to the action logit per standard deviation of |frame difference|
    motion_prior: float = 0.0

    def __post_init__(self) -> None:
        if self.registers < 0 or self.start < 0 or self.router_width < 1:
            raise ValueError("registers and start must be >= 0 and router_width >= 1")
        if self.estimator == "topk" and self.registers == 0:
            raise ValueError("topk needs at least one register for the patches that it leaves")
        if not 0 < self.topk_ratio < 1:
            raise ValueError(f"topk_ratio must be in (0, 1), got {self.topk_ratio}")

    def routes_once(self, training: bool) -> bool:
        """Whether the commit blocks keep the assignments of the first of them."""
        return self.schedule == "once" or (self.schedule == "once_in_eval" and not training)

    def closes(self) -> bool:
        """Whether, out of training, only the patches that the first commit block gives the action token
        can reach it."""
        hard = self.estimator != "soft" and self.patch_attention != "full"
        return hard and self.routes_once(training=False)


class CommitBlock(Block):
    """A ViT block (same weights and shapes) with committed attention, a router and a null key."""

    def __init__(
        self, width: int, heads: int, mlp_ratio: float, kernel: Kernel, config: CommitConfig
    ) -> None:
        super().__init__(width, heads, mlp_ratio, kernel)
        self.config = config
        self.norm_query = nn.LayerNorm(width)
        self.norm_key = nn.LayerNorm(width)
        self.router_query = nn.Linear(width, config.router_width, bias=False)
        self.router_key = nn.Linear(width, config.router_width, bias=False)
        self.action_bias = nn.Parameter(torch.zeros(1))  # FSDP shards no scalars
        self.null_key = nn.Parameter(torch.zeros(heads, 1, width // heads))
        self.null_value = nn.Parameter(torch.zeros(heads, 1, width // heads))

    def forward(
        self, patches: Tensor, special_tokens: Tensor, routing: Routing,
        motion: Tensor | None = None, kept: RoutingAssignments | None = None,
        action_only: bool = False,
    ) -> tuple[Tensor, Tensor, RoutingAssignments]:  # fmt: skip
        """patches (B, N, d), special tokens (B, S, d), motion (B, N) or None, kept: assignments of a
        block before, None to route anew -> both updated, and this block's assignments. action_only:
        the patches come back as they are and of the special tokens the action token alone (B, 1, d),
        at the cost of one query: for a block that none follows.
        """
        chosen = kept or self.choose(patches, special_tokens, routing, motion)
        if action_only:
            return patches, self._action(patches, special_tokens[:, :1], chosen), chosen
        special_tokens, patches = self._mix(patches, special_tokens, chosen)
        return patches, special_tokens, chosen

    def choose(
        self, patches: Tensor, special_tokens: Tensor, routing: Routing, motion: Tensor | None
    ) -> RoutingAssignments:
        """What each patch is committed to, by what comes into this block."""
        logits = self.router_logits(patches, special_tokens, motion)
        return route_tokens(logits, self.config.estimator, routing, self.config.topk_ratio)

    def router_logits(
        self, patches: Tensor, special_tokens: Tensor, motion: Tensor | None
    ) -> Tensor:
        """Logits of each patch for each special token, fp32: (B, N, S)."""
        with torch.autocast(patches.device.type, enabled=False):
            query = self.router_query(self.norm_query(patches.float()))
            key = self.router_key(self.norm_key(special_tokens.float()))
            logits = query @ key.transpose(1, 2) * self.config.router_width**-0.5
            action = self.action_bias
            if motion is not None and self.config.motion_prior:
                action = action + self.config.motion_prior * motion
            return torch.cat([logits[..., :1] + action[..., None], logits[..., 1:]], dim=-1)

    def _mix(
        self, patches: Tensor, special_tokens: Tensor, chosen: RoutingAssignments
    ) -> tuple[Tensor, Tensor]:
        """Gated read of the special tokens, committed attention of the patches, MLP: (B, S, d), (B,
        N, d).
        """
        count, kind = special_tokens.shape[1], self.config.patch_attention
        tokens = torch.cat([special_tokens, patches], dim=1)
        packed = self.project(tokens)
        if kind == "block" and chosen.hard and not torch.is_grad_enabled() and is_short(tokens):
            null = self.null_key, self.null_value
            mixed = committed_attention(packed, _groups(chosen), self.heads, *null)
            tokens = self.add_mlp(tokens + self.out(mixed))
            return tokens[:, :count], tokens[:, count:]
        q, k, v = split_heads(packed, self.heads)
        read = merge_heads(self._read(q, k, v, chosen)).to(packed.dtype)
        if kind == "none":
            return self.add_mlp(special_tokens + self.out(read)), patches
        if kind == "block" and chosen.hard:
            kept = grouped_attention(packed, _groups(chosen), self.heads, self.kernel)[:, count:]
        else:
            bias = _block_bias(chosen) if kind == "block" else None
            kept = merge_heads(attend(q[:, :, count:], k, v, bias, self.kernel))
        tokens = self.add_mlp(tokens + self.out(torch.cat([read, kept.to(read.dtype)], dim=1)))
        return tokens[:, :count], tokens[:, count:]

    def _action(self, patches: Tensor, action: Tensor, chosen: RoutingAssignments) -> Tensor:
        """`_mix` of the action token alone, (B, 1, d)."""
        with torch.autocast(patches.device.type, enabled=False):
            x = self.norm_attention(patches.float())
            read = self._read_patches(self.norm_attention(action[:, 0].float()), x, chosen)
        return self.add_mlp(action + self.out(read)[:, None])

    def _read_patches(self, action: Tensor, x: Tensor, chosen: RoutingAssignments) -> Tensor:
        """`_read` of the action token (B, d) over patches (B, N, d), both normalized -> (B, d). One
        query needs no key and value of every patch: q (W_k x) = (q W_k) x, and the mean of W_v x is
        W_v of the mean.
        """
        (query, key, value), (query_bias, key_bias, value_bias) = (
            rearrange(part, "(three h e) ... -> three h e ...", three=3, h=self.heads)
            for part in (self.qkv.weight, self.qkv.bias)
        )
        q = torch.einsum("bd,hed->bhe", action, query) + query_bias
        q = q * q.shape[-1] ** -0.5
        seen = torch.einsum("bhe,hed->bhd", q, key) @ x.transpose(1, 2)
        seen = seen + (q * key_bias).sum(dim=-1, keepdim=True) + chosen.used[:, None, :, 0].log()
        null = (q * self.null_key[:, 0]).sum(dim=-1, keepdim=True)
        share = F.softmax(torch.cat([null, seen], dim=-1), dim=-1)
        null, share = share[..., :1], share[..., 1:]
        read = torch.einsum("bhd,hed->bhe", share @ x, value) + (1 - null) * value_bias
        return (read + null * self.null_value[:, 0]).flatten(1)

    def _read(self, q: Tensor, k: Tensor, v: Tensor, chosen: RoutingAssignments) -> Tensor:
        """What the special tokens read (fp32), none of it of each other. q k v (B, h, S + N, e) -> (B,
        h, S, e)."""
        count = chosen.used.shape[-1]
        with torch.autocast(q.device.type, enabled=False):
            q, k, v = q[:, :, :count].float(), k.float(), v.float()
            gate = F.pad(chosen.used.transpose(1, 2), (count, 0))
            null = self.null_key.float(), self.null_value.float()
            return gated_read(q, k, v, gate[:, None], *null, hard=chosen.hard)


def gated_read(
    q: Tensor, k: Tensor, v: Tensor, gate: Tensor, null_key: Tensor, null_value: Tensor, *,
    hard: bool = True,
) -> Tensor:  # fmt: skip
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


def _groups(chosen: RoutingAssignments) -> Tensor:
    """Group of [special tokens, patches] under hard assignments, a special token and what is
    committed to it: (B, S + N).
    """
    own = torch.arange(chosen.used.shape[-1], device=chosen.used.device)
    groups = [own.expand(len(chosen.used), -1), chosen.used.argmax(dim=-1)]
    return torch.cat(groups, dim=1)


def _block_bias(chosen: RoutingAssignments) -> Tensor:
    """Log of the soft gate in [0, 1] of patches for [special tokens, patches], (B, 1, N, S + N): the
    softmax of logits + bias is the gated and renormalized one."""
    used = chosen.used
    gate = torch.cat([used, used @ used.transpose(1, 2)], dim=-1)
    return gate.clamp_min(_SMALLEST_GATE).log()[:, None]
