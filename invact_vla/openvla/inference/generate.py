"""Greedy decoding, batched over prompts of any length.

It gives what repeated full forward passes and argmax give. The original is limited to batch 1 and,
on recent transformers, loses the image (openvla issue 346): the sequence is therefore driven here.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from invact_vla.openvla.decoder import Decoder
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
    all_logits: bool = False,
) -> tuple[Tensor, Tensor]:
    """Decode `n_tokens` after each prompt.

    input_ids: (B, L), the separator included; attention_mask: (B, L), 0 where a shorter prompt is
    padded on the right; pixel_values: (B, C, H, W); allowed: ids to choose among (all when None),
    and unless all_logits the only rows of the head that are computed. Inputs may be anywhere: they are
    moved to the model.
    Returns ids (B, n_tokens) and logits (B, n_tokens, V), or of the allowed ids in their order.
    """
    if n_tokens < 1:
        raise ValueError(f"n_tokens must be at least 1, got {n_tokens}")
    input_ids = input_ids.to(model.device)
    attention_mask, pixel_values, proprio, allowed = (
        None if given is None else given.to(model.device)
        for given in (attention_mask, pixel_values, proprio, allowed)
    )
    embedded, mask = model.embed(input_ids, attention_mask, pixel_values, proprio)
    llama = model.language_model.model
    decoder = Decoder(llama, embedded.shape[1] + n_tokens - 1)
    head = _Head(model.language_model.lm_head, allowed, all_logits)
    hidden = decoder.prefill(embedded, mask)
    ids, logits = [], []
    while True:
        logits.append(head.logits(hidden))
        ids.append(head.argmax_token(logits[-1]))
        if len(ids) == n_tokens:
            return torch.stack(ids, dim=1), torch.stack(logits, dim=1)
        hidden = decoder.step(llama.embed_tokens(ids[-1]))


class _Head:
    """The rows of the language model's head that can be chosen, or all of them."""

    def __init__(self, head: nn.Module, allowed: Tensor | None, all_logits: bool) -> None:
        self.head, self.allowed, self.all = head, allowed, all_logits or allowed is None
        self.weight = None
        if type(head) is nn.Linear and not self.all:  # an adapter's layer is run as a whole
            self.weight = head.weight[allowed]

    def logits(self, hidden: Tensor) -> Tensor:
        """(B, D) -> (B, V or allowed)."""
        if self.weight is not None:
            return linear(hidden, self.weight)
        logits = self.head(hidden)
        return logits if self.all else logits[:, self.allowed]

    def argmax_token(self, logits: Tensor) -> Tensor:
        """The most probable allowed id of each row (B,)."""
        if self.allowed is None:
            return logits.argmax(-1)
        return self.allowed[(logits[:, self.allowed] if self.all else logits).argmax(-1)]
