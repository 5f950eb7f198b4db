"""Linear layers with int8 or packed 16-bit weights on a CPU. Int8 is half the memory of bfloat16, and
less to read per id.

Weights: symmetric, one scale per output channel. Inputs: symmetric, one scale per row, found at run
time. Products are summed in int32 by oneDNN (AMX or VNNI). Source: LLM.int8 (arxiv.org/abs/2208.07339,
§2), "vector-wise" quantization without its outlier part.
"""

import platform
from functools import cache
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from invact_vla.core.errors import UserError
from invact_vla.openvla.model import OpenVLA

Quantize = Literal["none", "int8"]
SMALLEST, SMALLEST_FP16 = 1e-12, 1e-7  # scale of a row or channel of zeros
BLOCK = 32  # rows that are quantized at a time


class Int8Linear(nn.Module):
    """Takes the place of a nn.Linear; float (..., in) -> (..., out). For inference, not saved."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach().float()
        scale = (weight.abs().amax(1) / 127).clamp_min(SMALLEST)
        rounded = (weight / scale[:, None]).round().to(torch.int8)
        self._scale = scale
        self._zeros = torch.zeros(self.out_features, dtype=torch.int32)
        self._packed = torch.ops.onednn.qlinear_prepack(rounded, [1, self.in_features])
        self._bias = None if linear.bias is None else linear.bias.detach().float()

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, self.in_features)
        return self.multiply(*quantize_rows(rows), x.dtype).view(*x.shape[:-1], self.out_features)

    def multiply(self, rows: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
        """What quantize_rows gives -> (R, out) of a dtype."""
        wide = torch.float32 if self._bias is not None or dtype == torch.float16 else dtype
        out = torch.ops.onednn.qlinear_pointwise(
            rows, 1.0, zero_point(), self._packed, self._scale, self._zeros, None,
            1.0, 0, wide, "none", [], "",
        )  # fmt: skip
        out = out.mul_(scale)
        return (out if self._bias is None else out.add_(self._bias)).to(dtype)

    def _save_to_state_dict(self, *unused: object) -> None:
        raise UserError("a model with int8 weights cannot be saved: load it with quantize none")


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Float (R, K) -> int8 or uint8 (R, K) around `zero_point`, and the scale of each row (R, 1), of x's
    dtype.

    A scale of 16 bits is rounded before it is used, and leaves half a step of room for that. Rows are
    taken a block at a time, so that what lies between stays in the processor's cache.
    """
    largest = levels() - (0 if x.dtype == torch.float32 else 0.5)
    smallest = SMALLEST_FP16 if x.dtype == torch.float16 else SMALLEST
    scale = (x.abs().amax(1, keepdim=True).float() / largest).clamp_min_(smallest).to(x.dtype)
    inverse = scale.float().reciprocal()
    if len(x) <= BLOCK:
        return _rounded(x, inverse), scale
    rows = torch.empty(x.shape, dtype=torch.uint8 if zero_point() else torch.int8)
    for start in range(0, len(x), BLOCK):
        block = slice(start, start + BLOCK)
        rows[block] = _rounded(x[block], inverse[block])
    return rows, scale


def _rounded(x: Tensor, inverse: Tensor) -> Tensor:
    whole = (x.float() * inverse).round_().add_(zero_point())
    return whole.to(torch.uint8 if zero_point() else torch.int8)


@cache
def zero_point() -> int:
    """0 with AMX; 128 with VNNI alone, whose signed products oneDNN leaves to its reference code (0.44 s
    for a row that takes 1 ms); 64 without, where oneDNN sums pairs of unsigned products in int16."""
    has = lambda name: getattr(torch.cpu, f"_is_{name}_supported", bool)()
    return 0 if has("amx_tile") else 128 if has("vnni") else 64


def levels() -> int:
    """The largest number that a quantized row holds, either side of `zero_point`."""
    return 63 if zero_point() == 64 else 127


class PackedLinear(nn.Module):
    """A 16-bit nn.Linear whose weights lie in the order in which oneDNN multiplies them, which a plain
    one reorders at each call; (..., in) -> (..., out) of the layer's dtype, equal bit for bit. For
    inference, not saved."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach()
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight, None)
        self._bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self._packed, self._bias, "none", [], "")

    def _save_to_state_dict(self, *unused: object) -> None:
        raise UserError("a model with packed weights cannot be saved: load it without a policy")


def can_pack(linear: nn.Linear) -> bool:
    """Whether a layer gains: a 16-bit one on a CPU whose oneDNN multiplies that dtype."""
    weight = linear.weight
    name = {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(weight.dtype)
    if weight.device.type != "cpu" or name is None or not torch.backends.mkldnn.is_available():
        return False
    return bool(getattr(torch.ops.mkldnn, f"_is_mkldnn_{name}_supported", bool)())


def quantize_model(model: OpenVLA, quantize: Quantize) -> None:
    """Make the layers of an OpenVLA's language model, where nearly all of its weights are, ready for
    inference where they are: Int8Linear in the place of each nn.Linear, or with "none" PackedLinear
    where that is faster. Embedding, norms, heads, projector and towers stay as they are."""
    layers = model.language_model.model.layers
    if quantize not in get_args(Quantize):
        raise UserError(f"unknown quantize {quantize!r}: expected none or int8")
    where = next(layers.parameters()).device.type
    if quantize == "int8" and where != "cpu":
        raise UserError(
            f"quantize int8 is for the CPU, not {where}: use quantize none with dtype bf16"
        )
    if quantize == "int8" and not has_onednn():
        raise UserError("quantize int8 needs a torch with oneDNN on an x86 processor: use none")
    for parent in list(layers.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear and (quantize == "int8" or can_pack(child)):
                kind = Int8Linear if quantize == "int8" else PackedLinear
                setattr(parent, name, kind(child))


def has_onednn() -> bool:
    """Whether this torch can run Int8Linear."""
    return platform.machine() in ("x86_64", "AMD64") and torch.backends.mkldnn.is_available()
