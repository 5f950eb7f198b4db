"""Attention inside groups of tokens, at the cost of the groups alone.

Tokens are sorted by group, so that a group is one run of rows, and every run attends itself: the
work is the sum of n_g^2 over groups, not N^2, forward and backward, and nothing N by N is ever
made. Equal to softmax attention with the mask [group_i = group_j], which short clips still use.

B clips, M tokens, h heads, e head width, d = h e.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from latent_actions.encoder.attention import Kernel, attend, merge_heads, split_heads

_FEWEST = 256  # tokens per clip that are worth sorting: below, calls cost more than the mask saves


def grouped_attention(packed: Tensor, groups: Tensor, heads: int, kernel: Kernel) -> Tensor:
    """Self-attention of each token over its clip's tokens of the same group.

    packed: (B, M, 3 d) queries, keys and values; groups: int64 (B, M) >= 0 -> (B, M, d).
    """
    if is_short(groups):
        return masked_attention(packed, groups, heads, kernel)
    order, sizes = sort_groups(groups)
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(len(order), device=order.device)
    rows: Tensor = _Reorder.apply(packed.flatten(0, 1), order, inverse)
    mixed = _jagged(rows, sizes, heads) if rows.is_cuda else _run_by_run(rows, sizes, heads, kernel)
    return _Reorder.apply(mixed, inverse, order).view(*groups.shape, -1)


def is_short(tokens: Tensor) -> bool:
    """Whether clips of so many tokens, (B, M, ...), are not worth sorting."""
    return tokens.shape[1] < _FEWEST


def committed_attention(
    packed: Tensor, groups: Tensor, heads: int, null_key: Tensor, null_value: Tensor
) -> Tensor:
    """The same of a commit block in one softmax, without gradients: packed (B, M, 3 d) begins with the
    S special tokens, groups 0 to S - 1, which read the null key and value (h, 1, e) instead of
    themselves: that stands in their own place -> (B, M, d).
    """
    q, k, v = split_heads(packed, heads)
    q = q * q.shape[-1] ** -0.5
    logits = (q @ k.transpose(-1, -2)).float()
    logits.masked_fill_(groups[:, None, :, None] != groups[:, None, None, :], float("-inf"))
    special = int(groups[0].max()) + 1
    own = logits.diagonal(dim1=-2, dim2=-1)[..., :special]
    own.copy_((q[:, :, :special] * null_key).sum(dim=-1))
    share = F.softmax(logits, dim=-1)
    own = share.diagonal(dim1=-2, dim2=-1)[..., :special, None]
    mixed = share.to(v.dtype) @ v
    mixed[:, :, :special] += own * (null_value - v[:, :, :special])
    return merge_heads(mixed)


def masked_attention(packed: Tensor, groups: Tensor, heads: int, kernel: Kernel) -> Tensor:
    """The same by a mask over all pairs: of few tokens, the faster way."""
    q, k, v = split_heads(packed, heads)
    closed = groups[:, None, :, None] != groups[:, None, None, :]
    bias = torch.zeros(closed.shape, device=closed.device).masked_fill_(closed, float("-inf"))
    return merge_heads(attend(q, k, v, bias, kernel))


def sort_groups(groups: Tensor) -> tuple[Tensor, Tensor]:
    """(B, M) -> order (B M,) that makes every group of every clip one run, clips first, and the
    sizes of the runs, none of them 0.
    """
    clips = torch.arange(len(groups), device=groups.device)[:, None]
    keys = (clips * (groups.max() + 1) + groups).flatten()
    sizes = torch.bincount(keys)
    return keys.argsort(stable=True), sizes[sizes > 0]


def _run_by_run(rows: Tensor, sizes: Tensor, heads: int, kernel: Kernel) -> Tensor:
    """One attention call per run: the fastest on a CPU. (B M, 3 d) -> (B M, d)."""
    packed = rearrange(rows, "n (three h e) -> three 1 h n e", three=3, h=heads)
    runs = zip(*(part.split(sizes.tolist(), dim=2) for part in packed), strict=True)
    mixed = torch.cat([attend(q, k, v, kernel=kernel) for q, k, v in runs], dim=2)
    return rearrange(mixed, "1 h n e -> n (h e)")


def _jagged(rows: Tensor, sizes: Tensor, heads: int) -> Tensor:
    """All runs in one variable-length call: what a GPU wants. (B M, 3 d) -> (B M, d)."""
    offsets = F.pad(sizes.cumsum(dim=0), (1, 0))
    q, k, v = (
        torch.nested.nested_tensor_from_jagged(part.contiguous(), offsets).transpose(1, 2)
        for part in rearrange(rows, "n (three h e) -> three n h e", three=3, h=heads)
    )
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).values().flatten(1)


class _Reorder(torch.autograd.Function):
    """Rows in another order. Its gradient is a gather too: indexing's own would be a scatter-add
    into zeros, several times more expensive.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, rows: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return rows.index_select(0, order)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None]:
        (inverse,) = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]
        return gradient.index_select(0, inverse), None, None
