"""The L1 regression head of OpenVLA-OFT: hidden states of the action slots -> a chunk of actions.

Source: OpenVLA-OFT (arxiv.org/abs/2502.19645, §IV; github.com/moojink/openvla-oft). Parameter names
are the published ones. Axis letters: B batch, n actions of a chunk, s slots each, D width, A numbers.
"""

from einops import rearrange
from torch import Tensor, nn


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
        self.relu = nn.ReLU()
        self.mlp_resnet_blocks = nn.ModuleList(MLPResNetBlock(width) for _ in range(blocks))
        self.layer_norm2 = nn.LayerNorm(width)
        self.fc2 = nn.Linear(width, out_width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.fc1(self.layer_norm1(x)))
        for block in self.mlp_resnet_blocks:
            x = block(x)
        return self.fc2(self.layer_norm2(x))


class L1RegressionActionHead(nn.Module):
    """Hidden states of all slots (B, n s, D) -> normalized actions (B, n, A), not squashed."""

    def __init__(self, width: int, slots_per_action: int, chunk: int, action_dim: int, blocks: int):
        super().__init__()
        self.chunk = chunk
        self.model = MLPResNet(width * slots_per_action, width, action_dim, blocks)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.model(rearrange(hidden, "b (n s) d -> b n (s d)", n=self.chunk))
