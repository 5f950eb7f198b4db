"""One layer of `decoder.py`: transformers' weights with as few calls around them as can be.

Axis letters: R rows, D width.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from invact_vla.openvla.inference.int8 import Int8Linear, quantize_rows

Products = Callable[[Tensor], list[Tensor]]  # rows (R, in) -> (R, out) of each layer


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
        self.layer, self.smallest = layer, smallest
        self.plain = layer.weight.dtype == torch.float32
        self.weight = layer.weight * math.sqrt(layer.weight.shape[0]) if self.plain else None

    def __call__(self, x: Tensor) -> Tensor:
        """(R, D) -> (R, D): x / sqrt(mean(x^2) + eps) * weight."""
        if self.weight is None or x.dtype != torch.float32:
            return self.layer(x)
        length = torch.hypot(torch.linalg.vector_norm(x, dim=1, keepdim=True), self.smallest)
        return (x * self.weight).div_(length)


def smallest_length(norm: Any) -> Tensor:
    """sqrt(D * eps), a scalar: the length below which the RMSNorms of a model shrink a row."""
    return norm.weight.new_full((), math.sqrt(norm.weight.shape[0] * norm.variance_epsilon))


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
        one = fast_row and len(x) == 1 and x.dtype == first.dtype
        return [(_one_row if one else linear)(x, weight, bias) for weight, bias in weights]

    return plain


def _one_row(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    out = torch.mv(weight, x[0])
    return (out if bias is None else out + bias)[None]
