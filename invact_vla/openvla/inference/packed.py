"""Linear layers of 16 bits whose weights lie in the order in which oneDNN multiplies them, on a CPU.

A plain layer has its weights reordered at each call. Results are equal, bit for bit; a packed layer has
no `weight` any more and is for inference alone.
"""

import torch
from torch import Tensor, nn

from invact_vla.core.errors import UserError


class PackedLinear(nn.Module):
    """Takes the place of a nn.Linear; (..., in) -> (..., out) of the layer's dtype."""

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
    known = {
        torch.bfloat16: "_is_mkldnn_bf16_supported",
        torch.float16: "_is_mkldnn_fp16_supported",
    }
    if weight.device.type != "cpu" or weight.dtype not in known:
        return False
    supported = getattr(torch.ops.mkldnn, known[weight.dtype], None)
    return torch.backends.mkldnn.is_available() and supported is not None and bool(supported())
