"""From patch features to the width of the language model.

Source: Prismatic's `fused-gelu-mlp` and `gelu-mlp` (arxiv.org/abs/2402.07865); OFT's state token
(arxiv.org/abs/2502.19645, §IV).
"""

from torch import Tensor, nn
from torch.nn.functional import gelu


class FusedProjector(nn.Module):
    """Three layers with exact GELU, for two towers. (B, P, vision width) -> (B, P, text width)."""

    def __init__(self, vision_width: int, text_width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(vision_width, 4 * vision_width)
        self.fc2 = nn.Linear(4 * vision_width, text_width)
        self.fc3 = nn.Linear(text_width, text_width)

    def forward(self, features: Tensor) -> Tensor:
        return self.fc3(gelu(self.fc2(gelu(self.fc1(features)))))


class Projector(nn.Module):
    """Two layers with exact GELU between: for one tower, and for the state token of OFT."""

    def __init__(self, in_width: int, text_width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_width, text_width)
        self.fc2 = nn.Linear(text_width, text_width)

    def forward(self, features: Tensor) -> Tensor:
        return self.fc2(gelu(self.fc1(features)))


def build_projector(vision_width: int, text_width: int, fused: bool) -> nn.Module:
    """`fused` is use_fused_vision_backbone of the config, as published."""
    kind = FusedProjector if fused else Projector
    return kind(vision_width, text_width)
