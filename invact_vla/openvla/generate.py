"""Greedy decoding with cached keys and values, batched over prompts of one length.

It gives what repeated full forward passes and argmax give. The original is limited to batch 1 and,
on recent transformers, loses the image (openvla issue 346): the sequence is therefore driven here.
"""

import torch
from torch import Tensor
from transformers import DynamicCache

from invact_vla.openvla.model import OpenVLA


@torch.inference_mode()
def greedy_decode(
    model: OpenVLA,
    input_ids: Tensor,
    n_tokens: int,
    pixel_values: Tensor | None = None,
    *,
    proprio: Tensor | None = None,
    allowed: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Decode `n_tokens` after each prompt.

    input_ids: (B, L), the separator included, none padded; pixel_values: (B, C, H, W); allowed: ids
    to choose among (all when None). Returns ids (B, n_tokens) and logits (B, n_tokens, V).
    """
    if n_tokens < 1:
        raise ValueError(f"n_tokens must be at least 1, got {n_tokens}")
    out = model(
        input_ids,
        pixel_values=pixel_values,
        proprio=proprio,
        cache=DynamicCache(config=model.language_model.config),
        last_only=True,
    )
    ids, logits = [], []
    while True:
        last = out.logits[:, -1]
        ids.append(choose(last, allowed))
        logits.append(last)
        if len(ids) == n_tokens:
            return torch.stack(ids, dim=1), torch.stack(logits, dim=1)
        out = model(ids[-1][:, None], cache=out.cache)


def choose(logits: Tensor, allowed: Tensor | None) -> Tensor:
    """(B, V) -> (B,): the most probable id, among `allowed` ids if given."""
    if allowed is None:
        return logits.argmax(-1)
    return allowed[logits[:, allowed].argmax(-1)]
