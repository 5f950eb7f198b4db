"""The Llama of a model run for decoding: a new id costs one pass over the weights and little else.

The numbers are those of transformers' own forward pass, and the weights are its modules', read where
they are. Saved are: the cache that grows by copying itself (here keys and values are written in
place), the masks (causality needs none), all but one place of the prompt in the last layer, the
machinery around each small operation, and on a CPU half the time of a 16-bit layer that sees a
single row (`products`).

Axis letters: B batch, N places of the prompt, R rows (B * N), D width, H heads, G key heads, d width
of a head, M places that there is room for.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention
from transformers import LlamaModel

from invact_vla.openvla.inference.int8 import Int8Linear, quantize_rows

GROWING = ("dynamic", "longrope")  # rotary embeddings that depend on the longest place so far
Products = Callable[[Tensor], list[Tensor]]  # rows (R, in) -> (R, out) of each layer
Rotary = tuple[Tensor, Tensor]  # cosines, and sines whose first half is negated: (B or 1, 1, N, d)


class DecoderLayer:
    """Weights of a LlamaDecoderLayer, looked up once."""

    def __init__(self, layer: Any, smallest: Tensor) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.first_norm = RmsNorm(layer.input_layernorm, smallest)
        self.second_norm = RmsNorm(layer.post_attention_layernorm, smallest)
        self._qkv = products(attention.q_proj, attention.k_proj, attention.v_proj)
        self._out = products(attention.o_proj)
        self._gate_up = products(mlp.gate_proj, mlp.up_proj)
        self._down = products(mlp.down_proj)
        self.activation = mlp.act_fn

    def heads(self, x: Tensor) -> Tensor:
        """(R, D) -> (R, queries | keys | values)."""
        return torch.cat(self._qkv(self.first_norm(x)), dim=1)

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """What follows attention: (R, D) and (R, heads * head width) -> (R, D)."""
        x = x + self._out(attended)[0]
        gate, up = self._gate_up(self.second_norm(x))
        return x + self._down(self.activation(gate) * up)[0]


class RmsNorm:
    """RMSNorm: in fp32 in four operations, else by the layer itself, which rounds in between."""

    def __init__(self, layer: Any, smallest: Tensor) -> None:
        """smallest: sqrt(D * eps), a scalar, the length below which a row is shrunk."""
        self.layer, self.smallest = layer, smallest
        is_fp32 = layer.weight.dtype == torch.float32
        self.weight = layer.weight * math.sqrt(len(layer.weight)) if is_fp32 else None

    def __call__(self, x: Tensor) -> Tensor:
        """(R, D) -> (R, D): x / sqrt(mean(x^2) + eps) * weight."""
        if self.weight is None or x.dtype != torch.float32:
            return self.layer(x)
        length = torch.hypot(torch.linalg.vector_norm(x, dim=1, keepdim=True), self.smallest)
        return (x * self.weight).div_(length)


def products(*layers: Any) -> Products:
    """Linear layers of the same rows as one function.

    Int8 layers share the quantized rows. A single 16-bit row on a CPU is multiplied by `mv`, which
    reads the weights as fast as memory gives them; `linear` takes up to twice as long there.
    """
    if all(type(layer) is Int8Linear for layer in layers):

        def quantized(x: Tensor) -> list[Tensor]:
            rows, scale = quantize_rows(x)
            return [layer.multiply(rows, scale, x.dtype) for layer in layers]

        return quantized
    if not all(type(layer) is nn.Linear for layer in layers):  # adapters around them
        return lambda x: [layer(x) for layer in layers]
    weights = [(layer.weight, layer.bias) for layer in layers]
    first = weights[0][0]
    fast_row = first.device.type == "cpu" and first.element_size() == 2

    def plain(x: Tensor) -> list[Tensor]:
        if not (fast_row and len(x) == 1 and x.dtype == first.dtype):
            return [linear(x, weight, bias) for weight, bias in weights]
        out = [(torch.mv(weight, x[0]), bias) for weight, bias in weights]
        return [(row if bias is None else row + bias)[None] for row, bias in out]

    return plain


class Decoder:
    """A Llama with room for the keys and values of M places. For inference, one prompt long."""

    def __init__(self, llama: LlamaModel, places: int) -> None:
        self.llama, self.places = llama, places
        norm: Any = llama.norm
        smallest = norm.weight.new_full((), math.sqrt(len(norm.weight) * norm.variance_epsilon))
        self.layers = [DecoderLayer(layer, smallest) for layer in llama.layers]
        self.norm = RmsNorm(llama.norm, smallest)
        first: Any = llama.layers[0].self_attn
        self.width: int = first.head_dim
        self.heads: int = llama.config.num_attention_heads
        self.key_heads: int = first.config.num_key_value_heads
        self._cache: list[tuple[Tensor, Tensor]] = []  # (B, G, M, d), a pair per layer
        self._past = 0  # places filled
        self._seen: Tensor | None = None  # (B, 1, 1, M), False at padding; None: no padding
        self._ahead: list[Rotary] = []  # rotary angles of the ids to come, in order

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
        self._past, self._ahead = length, self._angles_ahead(embedded, lengths)
        last = torch.arange(size, device=device) * length + lengths - 1
        rotary = self._rotary(embedded, torch.arange(length, device=device)[None])
        x = embedded.flatten(0, 1)
        for layer in self.layers[:-1]:
            query, key, value = self._heads(layer, x, size, rotary)
            self._store(key, value)
            x = layer.finish(x, self._causal(query, key, value))
        query, key, value = self._heads(self.layers[-1], x, size, rotary)
        self._store(key, value)
        query = query.transpose(1, 2).flatten(0, 1)[last][:, :, None]
        x = self.layers[-1].finish(x[last], self._attend(query, len(self.layers) - 1))
        return self.norm(x)

    def step(self, embedded: Tensor) -> Tensor:
        """(B, D) of one new id per row -> (B, D), its final state."""
        if self._past >= self.places:
            raise ValueError(f"no room for more than {self.places} places")
        size, x = len(embedded), embedded
        rotary = self._ahead.pop(0)
        now = slice(self._past, self._past + 1)
        self._past += 1
        for index, layer in enumerate(self.layers):
            query, key, value = self._heads(layer, x, size, rotary)
            keys, values = self._cache[index]
            keys[:, :, now], values[:, :, now] = key, value
            x = layer.finish(x, self._attend(query, index))
        return self.norm(x)

    def _rotary(self, like: Tensor, places: Tensor) -> Rotary:
        """Rotary angles of places (B or 1, N)."""
        cos, sin = self.llama.rotary_emb(like, places)
        half = self.width // 2
        signed = torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)
        return cos[:, None], signed[:, None]

    def _angles_ahead(self, like: Tensor, lengths: Tensor) -> list[Rotary]:
        """The angles of all ids that there is room for behind rows of these lengths (B,)."""
        count = self.places - like.shape[1]
        places = lengths[:, None] + torch.arange(count, device=lengths.device)
        if self.llama.rotary_emb.rope_type in GROWING:
            return [self._rotary(like, places[:, i : i + 1]) for i in range(count)]
        cos, sin = self._rotary(like, places)
        return [(cos[:, :, i : i + 1], sin[:, :, i : i + 1]) for i in range(count)]

    def _heads(self, layer: DecoderLayer, x: Tensor, size: int, rotary: Rotary) -> list[Tensor]:
        """(R, D) -> queries (B, H, N, d), keys and values (B, G, N, d), turned by their places."""
        all_heads = self.heads + 2 * self.key_heads
        rows = layer.heads(x).view(size, -1, all_heads, self.width).transpose(1, 2)
        turned, value = rows.split([self.heads + self.key_heads, self.key_heads], dim=1)
        cos, signed = rotary
        turned = turned * cos + turned.roll(self.width // 2, -1) * signed
        return [*turned.split([self.heads, self.key_heads], dim=1), value]

    def _store(self, key: Tensor, value: Tensor) -> None:
        """Begin the cache of one more layer with the prompt's keys and values (B, G, N, d)."""
        size, heads, length, width = key.shape
        keys, values = (key.new_empty(size, heads, self.places, width) for _ in range(2))
        keys[:, :, :length], values[:, :, :length] = key, value
        self._cache.append((keys, values))

    def _causal(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention within the prompt -> (R, H * d). Padding stands behind all that is real."""
        groups = self.heads // self.key_heads
        if groups > 1:
            key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
        out = scaled_dot_product_attention(query, key, value, is_causal=True)
        return out.transpose(1, 2).flatten(2).flatten(0, 1)

    def _attend(self, query: Tensor, index: int) -> Tensor:
        """(B, H, 1, d), attention of the newest place of each row to all -> (B, H * d). The heads
        that share a key stand where the queries of several places would."""
        keys, values = (x[:, :, : self._past] for x in self._cache[index])
        query = query.reshape(len(query), self.key_heads, -1, self.width)
        seen = None if self._seen is None else self._seen[..., : self._past]
        return scaled_dot_product_attention(query, keys, values, attn_mask=seen).flatten(1)
