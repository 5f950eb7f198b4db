"""One layer of `decoder.py`: transformers' weights with as few calls around them as can be.

Axis letters: R rows, D width.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from invact_vla.openvla.int8 import Int8Linear, quantize_rows

Projections = Callable[[Tensor], Sequence[Tensor]]  # rows (R, in) -> (R, out) of each layer


class DecoderLayer:
    """Weights of a LlamaDecoderLayer, looked up once."""

    def __init__(self, layer: nn.Module) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        query, key, value = attention.q_proj, attention.k_proj, attention.v_proj
        self.first_norm = RmsNorm(layer.input_layernorm)
        self.second_norm = RmsNorm(layer.post_attention_layernorm)
        self.qkv = projections(query, key, value)
        self.q, self.kv = projections(query), projections(key, value)
        self.out = projections(attention.o_proj)
        self.gate_up = projections(mlp.gate_proj, mlp.up_proj)
        self.down = projections(mlp.down_proj)
        self.activation = mlp.act_fn

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """What follows attention: (R, D) and (R, heads * head width) -> (R, D)."""
        x = x + self.out(attended)[0]
        gate, up = self.gate_up(self.second_norm(x))
        return x + self.down(self.activation(gate) * up)[0]


class RmsNorm:
    """RMSNorm: in fp32 in four operations, else by the layer itself, which rounds in between."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer
        weight = layer.weight
        root = math.sqrt(weight.shape[0])
        self.plain = weight.dtype == torch.float32
        if self.plain:
            self.weight = weight * root
            self.smallest = weight.new_tensor(root * math.sqrt(layer.variance_epsilon))

    def __call__(self, x: Tensor) -> Tensor:
        """(R, D) -> (R, D). x / sqrt(mean(x^2) + eps) * weight."""
        if not self.plain or x.dtype != torch.float32:
            return self.layer(x)
        length = torch.hypot(torch.linalg.vector_norm(x, dim=1, keepdim=True), self.smallest)
        return (x * self.weight).div_(length)


def projections(*layers: nn.Module) -> Projections:
    """Linear layers of the same rows as one function. Int8 layers share the quantized rows.

    A single 16-bit row on a CPU is multiplied by `mv`, which reads the weights as fast as memory
    gives them; `linear` takes up to twice as long there.
    """
    if all(type(layer) is Int8Linear for layer in layers):

        def quantized(x: Tensor) -> list[Tensor]:
            rows, scale = quantize_rows(x)
            return [layer.multiply(rows, scale, x.dtype) for layer in layers]

        return quantized
    if not all(type(layer) is nn.Linear for layer in layers):  # adapters around them
        return lambda x: [layer(x) for layer in layers]
    weights = [(layer.weight, layer.bias) for layer in layers]
    small = all(w.device.type == "cpu" and w.element_size() == 2 for w, _ in weights)

    def plain(x: Tensor) -> list[Tensor]:
        if small and len(x) == 1 and x.dtype == weights[0][0].dtype:
            return [_one_row(x, weight, bias) for weight, bias in weights]
        return [linear(x, weight, bias) for weight, bias in weights]

    return plain


def _one_row(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    out = torch.mv(weight, x[0])
    return (out if bias is None else out + bias)[None]
