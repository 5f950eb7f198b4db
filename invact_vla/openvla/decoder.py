"""The Llama of a model run for decoding: a new id costs one pass over the weights and little else.

The numbers are those of transformers' own forward pass, and the weights are its modules', read where
they are. Saved are: the cache that grows by copying itself (here keys and values are written in
place), the masks (causality needs none), all but one place of the prompt in the last layer, the
machinery around each small operation, and on a CPU half the time of a 16-bit layer that sees a
single row (`decoder_layer.py`).

Axis letters: B batch, N places of the prompt, R rows (B * N), D width, H heads, G key heads, d width
of a head, M places that there is room for.
"""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import LlamaModel

from invact_vla.openvla.decoder_layer import DecoderLayer, RmsNorm

Rotary = tuple[Tensor, Tensor]  # cosines, and sines whose first half is negated: (B or 1, 1, N, d)


class Decoder:
    """A Llama with room for the keys and values of M places. For inference, one prompt long."""

    def __init__(self, llama: LlamaModel, places: int) -> None:
        self.llama, self.places = llama, places
        self.layers = [DecoderLayer(layer) for layer in llama.layers]
        self.norm = RmsNorm(llama.norm)
        self.width = llama.layers[0].self_attn.head_dim
        self.key_heads = llama.config.num_key_value_heads
        self.groups = llama.config.num_attention_heads // self.key_heads
        self._cache: list[tuple[Tensor, Tensor]] = []  # (B, G, M, d), a pair a layer
        self._past = 0  # places filled
        self._seen: Tensor | None = None  # (B, 1, 1, M), False at padding; None: no padding
        self._next = torch.empty(0)  # (B, 1) place of the next id, padding not counted

    def prefill(self, embedded: Tensor, attention_mask: Tensor | None) -> Tensor:
        """(B, N, D), the padding on the right where the mask (B, N) is 0 -> (B, D): the final state
        of the last real place of each row."""
        size, length = embedded.shape[:2]
        device = embedded.device
        lengths = torch.full((size,), length, device=device)
        if attention_mask is not None:
            lengths = attention_mask.sum(1)
            self._seen = torch.ones(size, 1, 1, self.places, dtype=torch.bool, device=device)
            self._seen[:, 0, 0, :length] = attention_mask != 0
        self._past, self._next = length, lengths[:, None]
        last = torch.arange(size, device=device) * length + lengths - 1
        rotary = self._rotary(embedded, torch.arange(length, device=device)[None])
        *first, final = self.layers
        x = embedded.flatten(0, 1)
        for layer in first:
            query, key, value = (self._heads(y, size) for y in layer.qkv(layer.first_norm(x)))
            key = _turn(key, rotary)
            self._store(key, value)
            x = layer.finish(x, self._causal(_turn(query, rotary), key, value))
        normed = final.first_norm(x)
        key, value = (self._heads(y, size) for y in final.kv(normed))
        self._store(_turn(key, rotary), value)
        (query,) = (self._heads(y, size) for y in final.q(normed[last]))
        query = _turn(query, self._rotary(embedded, self._next - 1))
        x = final.finish(x[last], self._attend(query, len(first)))
        return self.norm(x)

    def step(self, embedded: Tensor) -> Tensor:
        """(B, D) of one new id a row -> (B, D), its final state."""
        if self._past >= self.places:
            raise ValueError(f"no room for more than {self.places} places")
        size, x = len(embedded), embedded
        rotary = self._rotary(embedded, self._next)
        now = slice(self._past, self._past + 1)
        self._past, self._next = self._past + 1, self._next + 1
        for index, layer in enumerate(self.layers):
            query, key, value = layer.qkv(layer.first_norm(x))
            keys, values = self._cache[index]
            keys[:, :, now] = _turn(key.view(size, self.key_heads, 1, self.width), rotary)
            values[:, :, now] = value.view(size, self.key_heads, 1, self.width)
            query = _turn(query.view(size, -1, 1, self.width), rotary)
            x = layer.finish(x, self._attend(query, index))
        return self.norm(x)

    def _rotary(self, like: Tensor, places: Tensor) -> Rotary:
        """Rotary angles of places (B or 1, N)."""
        cos, sin = self.llama.rotary_emb(like, places)
        half = self.width // 2
        signed = torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)
        return cos[:, None], signed[:, None]

    def _heads(self, x: Tensor, size: int) -> Tensor:
        """(R, heads * d) -> (B, heads, N, d)."""
        return x.view(size, -1, x.shape[1] // self.width, self.width).transpose(1, 2)

    def _store(self, key: Tensor, value: Tensor) -> None:
        """Begin the cache of one more layer with the prompt's keys and values (B, G, N, d)."""
        size, heads, length, width = key.shape
        keys, values = (key.new_empty(size, heads, self.places, width) for _ in range(2))
        keys[:, :, :length], values[:, :, :length] = key, value
        self._cache.append((keys, values))

    def _causal(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention within the prompt -> (R, H * d). Padding stands behind all that is real."""
        if self.groups > 1:
            key, value = (x.repeat_interleave(self.groups, dim=1) for x in (key, value))
        out = scaled_dot_product_attention(query, key, value, is_causal=True)
        return out.transpose(1, 2).flatten(2).flatten(0, 1)

    def _attend(self, query: Tensor, index: int) -> Tensor:
        """(B, H, 1, d), attention of the newest place of each row to all -> (B, H * d). The heads
        that share a key stand where the queries of several places would."""
        keys, values = (x[:, :, : self._past] for x in self._cache[index])
        query = query.reshape(len(query), self.key_heads, self.groups, self.width)
        seen = None if self._seen is None else self._seen[..., : self._past]
        return scaled_dot_product_attention(query, keys, values, attn_mask=seen).flatten(1)


def _turn(x: Tensor, rotary: Rotary) -> Tensor:
    """Rotary embedding of (B, heads, N, d)."""
    cos, signed = rotary
    swapped = x.unflatten(-1, (2, -1)).flip(-2).flatten(-2)
    return x * cos + swapped * signed
