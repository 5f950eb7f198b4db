"""Greedy decoding with cached keys and values, batched over prompts of any length.

It gives what repeated full forward passes and argmax give. The original is limited to batch 1 and,
on recent transformers, loses the image (openvla issue 346): the sequence is therefore driven here.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache

from invact_vla.openvla.model import OpenVLA


@torch.inference_mode()
def greedy_decode(
    model: OpenVLA,
    input_ids: Tensor,
    n_tokens: int,
    pixel_values: Tensor | None = None,
    *,
    attention_mask: Tensor | None = None,
    proprio: Tensor | None = None,
    allowed: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Decode `n_tokens` after each prompt.

    input_ids: (B, L), the separator included; attention_mask: (B, L), 0 where a shorter prompt is
    padded on the right; pixel_values: (B, C, H, W); allowed: ids to choose among (all when None).
    Inputs may be anywhere: they are moved to the model. The ids of a row stand behind the padding in
    the cache, but have the places of the unpadded row.
    Returns ids (B, n_tokens) and logits (B, n_tokens, V).
    """
    if n_tokens < 1:
        raise ValueError(f"n_tokens must be at least 1, got {n_tokens}")
    input_ids, attention_mask, pixel_values, proprio, allowed = (
        None if given is None else given.to(model.device)
        for given in (input_ids, attention_mask, pixel_values, proprio, allowed)
    )
    out = model(
        input_ids,
        attention_mask,
        pixel_values,
        proprio=proprio,
        cache=DynamicCache(config=model.language_model.config),
        last_only=True,
    )
    mask = attention_mask
    if mask is not None:  # the image stands behind BOS
        mask = pad(mask, (out.cache.get_seq_length() - mask.shape[1], 0), value=1)
    ids, logits = [], []
    while True:
        last = out.logits[:, -1]
        ids.append(choose(last, allowed))
        logits.append(last)
        if len(ids) == n_tokens:
            return torch.stack(ids, dim=1), torch.stack(logits, dim=1)
        mask = None if mask is None else pad(mask, (0, 1), value=1)
        out = model(ids[-1][:, None], mask, cache=out.cache)


def choose(logits: Tensor, allowed: Tensor | None) -> Tensor:
    """(B, V) -> (B,): the most probable id, among `allowed` ids if given."""
    if allowed is None:
        return logits.argmax(-1)
    return allowed[logits[:, allowed].argmax(-1)]
