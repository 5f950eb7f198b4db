"""OpenVLA: images and text in, next-token logits out.

The sequence is [BOS | patches of each image | state token, if any | text after BOS], places 0..N-1,
causal. With action slots in the text it is bidirectional, and gives a chunk of actions in one pass.
Source: OpenVLA (arxiv.org/abs/2406.09246); several images, the state token and the slots after
OpenVLA-OFT (arxiv.org/abs/2502.19645).

Axis letters: B batch, L text ids (BOS included), P patches of all images, N = L + P (+ 1) places,
V vocabulary rows, D width, K action slots, n actions of a chunk, A numbers of an action.
"""

from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from invact_vla.openvla.attention import AttentionImpl, build_llama, causal_mask, full_mask
from invact_vla.openvla.config import IGNORED, OpenVLAConfig
from invact_vla.openvla.modules import FusedProjector, Projector, build_slots
from invact_vla.openvla.vision_backbones import VisionBackbone


@dataclass
class OpenVLAOutput:
    """loss: scalar or None. logits: (B, N, V), or (labels, V) when only the labels were asked for.
    targets: (labels,) ids, beside logits of labels only. hidden: (B, K, D) of the action slots, after
    the final norm; actions: (B, n, A) normalized, of the regression head. logits are None where the
    slots feed that."""

    loss: Tensor | None
    logits: Tensor | None
    targets: Tensor | None = None
    hidden: Tensor | None = None
    actions: Tensor | None = None


class OpenVLA(nn.Module):
    """The model; parameter names are the published ones, but for LayerScale (see checkpoint.py).

    constant: names of parameters that training leaves as its start has them."""

    constant: frozenset[str] = frozenset()

    def __init__(self, config: OpenVLAConfig, attention: AttentionImpl = "auto") -> None:
        super().__init__()
        self.config = config
        width = config.text_config.hidden_size
        self.vision_backbone = VisionBackbone(config, attention)
        kind = FusedProjector if config.use_fused_vision_backbone else Projector
        self.projector = kind(self.vision_backbone.width, width)
        self.language_model = build_llama(config, attention)
        proprio = config.invact.proprio_dim
        self.proprio_projector = Projector(proprio, width) if proprio else None
        self.action_head, self.action_slots = build_slots(config, width)

    def finish_loading(self, device: torch.device) -> None:
        """What no file has, for a model that was made on the meta device: the rotary embedding's
        buffers, and one tensor where head and embedding are tied."""
        language = self.language_model
        language.model.rotary_emb = LlamaRotaryEmbedding(language.config).to(device)
        if self.config.text_config.tie_word_embeddings:
            language.lm_head.weight = language.model.embed_tokens.weight

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.language_model.lm_head.weight.device

    def checkpoint_gradients(self) -> None:
        """Recompute the blocks of towers and language model in the backward pass."""
        llama: Any = self.language_model
        old: Any = getattr(llama, "gradient_checkpointing_enable", None)  # of older transformers
        getattr(llama, "activation_checkpointing_enable", old)({"use_reentrant": False})
        self.vision_backbone.checkpointing = True

    def vision_features(self, pixel_values: Tensor) -> Tensor:
        """(B, images * 3 n_towers, H, W) -> (B, P, vision width), image after image, in the number
        format of the weights."""
        weight = next(self.vision_backbone.parameters())
        pixel_values = pixel_values.to(weight.dtype)
        channels = 3 * self.config.n_towers
        images = pixel_values.shape[1] // channels
        if images <= 1:
            return self.vision_backbone(pixel_values)
        flat = rearrange(pixel_values, "b (i c) h w -> (b i) c h w", c=channels)
        return rearrange(self.vision_backbone(flat), "(b i) p d -> b (i p) d", i=images)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None, labels: Tensor | None = None, *,
        proprio: Tensor | None = None, labels_only: bool = False, last_only: bool = False,
        slots: Tensor | None = None, actions: Tensor | None = None,
    ) -> OpenVLAOutput:  # fmt: skip
        """input_ids: (B, L) starting with BOS, padded on the right; attention_mask: (B, L), 1 real;
        pixel_values: (B, C, H, W) or None for a text-only batch; labels: (B, L), -100 ignored, not
        shifted (the shift is made here); proprio: (B, S) normalized state.

        labels_only: compute logits only where a label exists (same loss, much less work).
        last_only: compute logits of the last real place of each row only.
        slots: (B, K) places of the action slots in input_ids (heads that decode in parallel);
        actions: (B, n, A) normalized targets of the regression head, for the L1 loss.
        """
        embedded = self.language_model.model.embed_tokens(input_ids)
        if slots is not None:
            embedded = self._fill_slots(embedded, slots)
        if pixel_values is not None:
            extra = self._extra_tokens(pixel_values, proprio)
            embedded, attention_mask, labels = _insert(extra, embedded, attention_mask, labels)
        if slots is not None:
            places = slots + embedded.shape[1] - input_ids.shape[1]
            return self._parallel(embedded, attention_mask, places, labels, actions)
        hidden = self._hidden(embedded, causal_mask(attention_mask, embedded.shape[1], embedded))
        if last_only:
            hidden = _last_real(hidden, attention_mask)
        loss, logits, targets = self._head(hidden, labels, labels_only)
        return OpenVLAOutput(loss, logits, targets)

    def _hidden(self, embedded: Tensor, mask: Tensor) -> Tensor:
        """(B, N, D) after the final norm, under an additive mask."""
        llama = self.language_model.model
        return llama(inputs_embeds=embedded, attention_mask=mask, use_cache=False).last_hidden_state

    def embed(
        self, input_ids: Tensor, attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None, proprio: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """What the language model reads of a prompt, (B, N, D), and its mask (B, N), if one is given;
        for `generate.py`. Arguments as in `forward`."""
        embedded = self.language_model.model.embed_tokens(input_ids)
        if pixel_values is None:
            return embedded, attention_mask
        extra = self._extra_tokens(pixel_values, proprio)
        return _insert(extra, embedded, attention_mask, None)[:2]

    def _fill_slots(self, embedded: Tensor, slots: Tensor) -> Tensor:
        """Put the slots' own embeddings, or zeros, at their places in (B, L, D)."""
        shape = (*slots.shape, embedded.shape[2])
        learned = self.action_slots
        own = embedded.new_zeros(()) if learned is None else learned.to(embedded.dtype)
        return embedded.scatter(1, slots[..., None].expand(shape), own.expand(shape))

    def _parallel(
        self, embedded: Tensor, attention_mask: Tensor | None, places: Tensor, labels: Tensor | None,
        actions: Tensor | None,
    ) -> OpenVLAOutput:  # fmt: skip
        """One bidirectional pass; the slots' outputs are read one place before each slot, as
        published, or at the slots themselves where these have embeddings of their own.

        places: (B, K) in the whole sequence (B, N, D); labels: (B, N), ids at the slots.
        """
        if attention_mask is None:
            attention_mask = embedded.new_ones(embedded.shape[:2])
        out = self._hidden(embedded, full_mask(attention_mask, embedded))
        read = places if self.action_slots is not None else places - 1
        hidden = out.gather(1, read[..., None].expand(-1, -1, out.shape[2]))
        if self.action_head is None:
            logits = self.language_model.lm_head(hidden)
            if labels is None:
                return OpenVLAOutput(None, logits, hidden=hidden)
            logits, targets = logits.flatten(0, 1), labels.gather(1, places).flatten()
            return OpenVLAOutput(_cross_entropy(logits, targets), logits, targets, hidden=hidden)
        predicted = self.action_head(hidden)
        loss = None if actions is None else (predicted.float() - actions).abs().mean()
        return OpenVLAOutput(loss, None, hidden=hidden, actions=predicted)

    def _extra_tokens(self, pixel_values: Tensor, proprio: Tensor | None) -> Tensor:
        """The patches (B, P, D), and the state token behind them where the model has one."""
        if (proprio is None) != (self.proprio_projector is None):
            has = "has no" if self.proprio_projector is None else "needs the"
            raise ValueError(
                f"this model {has} state token: proprio must be given exactly if it does"
            )
        projected = self.projector(self.vision_features(pixel_values))
        if self.proprio_projector is None or proprio is None:
            return projected
        proprio = proprio.to(self.proprio_projector.fc1.weight.dtype)
        state = self.proprio_projector(rearrange(proprio, "b s -> b 1 s"))
        return torch.cat([projected, state.to(projected.dtype)], dim=1)

    def _head(
        self, hidden: Tensor, labels: Tensor | None, labels_only: bool
    ) -> tuple[Tensor | None, Tensor, Tensor | None]:
        """Logits, and the mean cross-entropy over the labels, each predicted one place before."""
        head = self.language_model.lm_head
        if labels is None:
            return None, head(hidden), None
        wanted = labels[:, 1:] != IGNORED
        targets = labels[:, 1:][wanted]
        if labels_only:
            logits = head(hidden[:, :-1][wanted])
            return _cross_entropy(logits, targets), logits, targets
        logits = head(hidden)
        return _cross_entropy(logits[:, :-1][wanted], targets), logits, None


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits.float(), targets)


def _insert(
    extra: Tensor, embedded: Tensor, mask: Tensor | None, labels: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Put (B, P, D) tokens behind BOS: they are seen, and have no labels."""
    if len(extra) != len(embedded):
        raise ValueError(f"{len(extra)} images for {len(embedded)} texts: one each, or none at all")
    embedded = torch.cat([embedded[:, :1], extra.to(embedded.dtype), embedded[:, 1:]], dim=1)
    places = extra.shape[:2]
    if mask is not None:
        mask = torch.cat([mask[:, :1], mask.new_ones(places), mask[:, 1:]], dim=1)
    if labels is not None:
        ignored = labels.new_full(places, IGNORED)
        labels = torch.cat([labels[:, :1], ignored, labels[:, 1:]], dim=1)
    return embedded, mask, labels


def _last_real(hidden: Tensor, mask: Tensor | None) -> Tensor:
    """(B, N, D) -> (B, 1, D): the last place of each row that the mask (B, >= N) calls real."""
    if mask is None:
        return hidden[:, -1:]
    size = hidden.shape[1]
    last = size - 1 - mask[:, -size:].flip(1).argmax(1)
    return hidden[torch.arange(len(hidden), device=hidden.device), last][:, None]


def build_model(config: OpenVLAConfig, seed: int, attention: AttentionImpl = "auto") -> OpenVLA:
    """A model with fresh weights that depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return OpenVLA(config, attention)
