"""Greedy decoding, batched over prompts of any length.

It gives what repeated full forward passes and argmax give. The original is limited to batch 1 and,
on recent transformers, loses the image (openvla issue 346): the sequence is therefore driven here.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from invact_vla.openvla.decoder import Decoder
from invact_vla.openvla.model import OpenVLA
from invact_vla.training.device import place


@torch.inference_mode()
def greedy_decode(
    model: OpenVLA, input_ids: Tensor, n_tokens: int, pixel_values: Tensor | None = None, *,
    attention_mask: Tensor | None = None, proprio: Tensor | None = None,
    allowed: Tensor | Sequence[int] | None = None, all_logits: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Decode `n_tokens` after each prompt.

    input_ids: (B, L), the separator included; attention_mask: (B, L), 0 where a shorter prompt is
    padded on the right; pixel_values: (B, C, H, W); allowed: ids to choose among (all when None),
    and unless all_logits the only rows of the head that are computed. Inputs may be anywhere: they are
    moved to the model.
    Returns ids (B, n_tokens) and logits (B, n_tokens, V), or of the allowed ids in their order.
    """
    if n_tokens < 1:
        raise ValueError(f"n_tokens must be at least 1, got {n_tokens}")
    device, llama = model.device, model.language_model.model
    among = None if allowed is None else torch.as_tensor(allowed, device=device)
    embedded, mask = model.embed(*place((input_ids, attention_mask, pixel_values, proprio), device))
    decoder = Decoder(llama, embedded.shape[1] + n_tokens - 1)
    logits_of = _head(model.language_model.lm_head, None if all_logits else among)
    hidden = decoder.prefill(embedded, mask)
    ids, logits = [], []
    while True:
        logits.append(logits_of(hidden))
        choices = logits[-1] if among is None or not all_logits else logits[-1][:, among]
        best = choices.argmax(-1)
        ids.append(best if among is None else among[best])
        if len(ids) == n_tokens:
            return torch.stack(ids, dim=1), torch.stack(logits, dim=1)
        hidden = decoder.step(llama.embed_tokens(ids[-1]))


def _head(head: nn.Module, rows: Tensor | None) -> Callable[[Tensor], Tensor]:
    """(B, D) -> (B, V or rows): logits of some rows of the language model's head, or of all."""
    if rows is None:
        return head
    if type(head) is not nn.Linear:  # an adapter's layer is run as a whole
        return lambda hidden: head(hidden)[:, rows]
    weight = head.weight[rows]
    return lambda hidden: linear(hidden, weight)
