"""The small networks around the language model: projectors, and the head that reads action slots.

Parameter names are the published ones. Sources: Prismatic's `fused-gelu-mlp` and `gelu-mlp`
(arxiv.org/abs/2402.07865); OpenVLA-OFT (arxiv.org/abs/2502.19645, §IV; github.com/moojink/openvla-oft).
Axis letters: B batch, P patches, n actions of a chunk, s slots each, D width, A numbers of an action.
"""

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import gelu

from invact_vla.openvla.config import OftHeadConfig, OpenVLAConfig


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


class MLPResNetBlock(nn.Module):
    """x + ReLU(Linear(LayerNorm(x))), (..., D) -> (..., D)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ffn = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.ffn(x)


class MLPResNet(nn.Module):
    """(B, n, s D) -> (B, n, A)."""

    def __init__(self, in_width: int, width: int, out_width: int, blocks: int) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(in_width)
        self.fc1 = nn.Linear(in_width, width)
        self.mlp_resnet_blocks = nn.Sequential(*(MLPResNetBlock(width) for _ in range(blocks)))
        self.layer_norm2 = nn.LayerNorm(width)
        self.fc2 = nn.Linear(width, out_width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mlp_resnet_blocks(self.fc1(self.layer_norm1(x)).relu())
        return self.fc2(self.layer_norm2(x))


class L1RegressionActionHead(nn.Module):
    """Hidden states of all slots (B, n s, D) -> normalized actions (B, n, A), not squashed."""

    def __init__(self, width: int, slots_per_action: int, chunk: int, action_dim: int, blocks: int):
        super().__init__()
        self.chunk = chunk
        self.model = MLPResNet(width * slots_per_action, width, action_dim, blocks)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.model(rearrange(hidden, "b (n s) d -> b n (s d)", n=self.chunk))


def build_slots(
    config: OpenVLAConfig, width: int
) -> tuple[L1RegressionActionHead | None, nn.Parameter | None]:
    """The regression head and the embeddings (K, D) of the slots, where the config has them."""
    head, own = config.invact.head, config.invact
    if not isinstance(head, OftHeadConfig):
        return None, None
    slots = nn.Parameter(torch.randn(config.slots, width) * 0.02) if head.learned_slots else None
    if head.output == "tokens":
        return None, slots
    per_action = config.slots // own.chunk
    return L1RegressionActionHead(width, per_action, own.chunk, own.action_dim, head.blocks), slots
