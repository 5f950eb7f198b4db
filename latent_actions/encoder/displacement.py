"""What an embedding leaves out: where the hand went, as a few numbers beside it.

The embedding is of unit length, the same from any view, and taught by verbs: it tells a push from a lift
and hardly which way. The displacement head reads the patches before they are committed, each in its
place, and names the way from the first to the last frame of the clip in axes that views share (right,
forward, up by gravity and the camera's heading), or the flow of the picture where hands are not known.

B clips, N patches, d width, m numbers.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from invact_vla.core.errors import UserError
from latent_actions.encoder.inputs.flow import dense_flow

Vector = Literal["embedding", "displacement", "both"]  # what is given of a clip
NUMBERS: dict[str, int] = {"hand": 3, "flow": 2}  # of each target
UNIT = 0.1  # of a meter, or of the frame's width: a usual displacement, the loss's scale
_NARROW, _HIDDEN = 16, 128  # numbers of a patch, of the hidden layer


class DisplacementHead(nn.Module):
    """Patches (B, N, d) -> displacement (B, m), fp32. Fitted by displacement_fit.py."""

    def __init__(self, patches: int, width: int, numbers: int) -> None:
        super().__init__()
        self.norm, self.narrow = nn.LayerNorm(width), nn.Linear(width, _NARROW)
        self.hidden = nn.Linear(patches * _NARROW, _HIDDEN)
        self.out = nn.Linear(_HIDDEN, numbers)

    def forward(self, patches: Tensor) -> Tensor:
        narrow = self.narrow(self.norm(patches)).flatten(1)
        return UNIT * self.out(F.gelu(self.hidden(narrow), approximate="tanh")).float()


def vector_width(embedding: int, displacement: int, vector: Vector) -> int:
    """Numbers that an encoder gives of a clip. UserError for a displacement without a head."""
    if vector != "embedding" and not displacement:
        raise UserError(
            f"this encoder has no displacement head, which {vector!r} asks for: train one with "
            "displacement.target, as configs/encoder/encoder_motion_cpu.yaml does"
        )
    return (vector != "displacement") * embedding + (vector != "embedding") * displacement


def displacement_loss(said: Tensor, true: Tensor) -> Tensor:
    """Smooth L1 of displacements (B, m) in units of UNIT, over the clips whose true one is known (not
    NaN); 0 where none is."""
    known = true.isfinite().all(dim=1)
    error = F.smooth_l1_loss(said[known] / UNIT, true[known] / UNIT, reduction="sum")
    return error / known.sum().clamp_min(1) / true.shape[1]


def flow_displacement(pixels: Tensor) -> Tensor:
    """The way of what moves over a clip, to the right and up, in shares of the frame's width: pixels (B,
    T, H, W, 3) in [0, 1] -> (B, 2). Lucas-Kanade flow from frame to frame, relative to its median (the
    camera's own motion), weighted by the change of each pixel, summed over time.
    """
    flow = dense_flow(pixels)
    flow = flow - flow.flatten(2, 3).median(dim=2).values[:, :, None, None]
    change = (pixels[:, 1:] - pixels[:, :-1]).abs().mean(dim=-1, keepdim=True).float()
    weight = change.sum(dim=(2, 3)).clamp_min(1e-6)
    way = ((flow * change).sum(dim=(2, 3)) / weight).sum(dim=1) / pixels.shape[-2]
    return way * way.new_tensor([1.0, -1.0])
