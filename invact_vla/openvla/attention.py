"""The Llama of OpenVLA, from transformers, and the choice between fused and explicit attention, for the
towers and the language model alike.

On a CPU the backward pass of `scaled_dot_product_attention` in bfloat16 is several times slower
than matmul, softmax, matmul; in float32 the fused one is ahead (docs/log.md). "auto" knows this.
"""

import copy
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor
from transformers import LlamaForCausalLM
from transformers.modeling_utils import AttentionInterface

from invact_vla.openvla.config import OpenVLAConfig

AttentionImpl = Literal["auto", "sdpa", "matmul"]
MASK_VALUE = -1e30  # added to hidden scores; finite in bfloat16, so that no row becomes NaN


def use_fused(attention: AttentionImpl, like: Tensor) -> bool:
    """Whether to call scaled_dot_product_attention for a layer fed with `like`."""
    if attention != "auto":
        return attention == "sdpa"
    if like.device.type != "cpu":
        return True
    bf16 = like.dtype == torch.bfloat16
    if torch.is_autocast_enabled("cpu"):
        bf16 = torch.get_autocast_dtype("cpu") == torch.bfloat16
    return not (bf16 and torch.is_grad_enabled())


def llama_attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, *,
    scaling: float, dropout: float = 0.0, attention: AttentionImpl = "auto", **unused: object,
) -> tuple[Tensor, None]:  # fmt: skip
    """Attention with transformers' interface. query: (B, heads, N, d), key and value: (B, kv heads,
    M, d), attention_mask: additive (B or 1, 1, N, M) or None -> (B, N, heads, d), None."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    mask = None if attention_mask is None else attention_mask.to(query.dtype)
    if use_fused(attention, query):
        out = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=dropout, scale=scaling
        )
    else:
        scores = (query * scaling) @ key.transpose(-1, -2)
        if mask is not None:
            scores = scores + mask
        weights = torch.nn.functional.dropout(scores.softmax(-1), dropout)
        out = weights.to(value.dtype) @ value
    return out.transpose(1, 2), None


def causal_mask(attention_mask: Tensor | None, size: int, like: Tensor) -> Tensor:
    """Additive mask (B or 1, 1, size, size): causal, and padded keys hidden.

    attention_mask: (B, size) with 1 for real positions, or None. A query whose keys are all
    hidden attends to all alike, as in eager transformers.
    """
    place = torch.arange(size, device=like.device)
    hidden = (place[None, :] > place[:, None])[None, None]
    if attention_mask is not None:
        hidden = hidden | (attention_mask[:, None, None, :] == 0)
    return _additive(hidden, like)


def full_mask(attention_mask: Tensor, like: Tensor) -> Tensor:
    """Additive mask (B, 1, 1, N) of bidirectional attention: only padding is hidden, where
    attention_mask (B, N) is 0."""
    return _additive((attention_mask == 0)[:, None, None, :], like)


def _additive(hidden: Tensor, like: Tensor) -> Tensor:
    zeros = torch.zeros(hidden.shape, dtype=like.dtype, device=like.device)
    return zeros.masked_fill(hidden, max(torch.finfo(like.dtype).min, MASK_VALUE))


for _choice in get_args(AttentionImpl):
    AttentionInterface.register(f"invact_{_choice}", partial(llama_attention, attention=_choice))


def build_llama(config: OpenVLAConfig, attention: AttentionImpl = "auto") -> LlamaForCausalLM:
    """A Llama with random weights (or none, on the meta device)."""
    inner = copy.deepcopy(config.text_config)
    inner.pad_token_id = config.pad_token_id
    inner._attn_implementation = f"invact_{attention}"
    return LlamaForCausalLM(inner)
