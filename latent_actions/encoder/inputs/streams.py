"""What of a clip's frames the encoder is shown: colors, frame differences (as they are, or without the
camera's motion), optical flow.

B clips, T frames, H W pixels; every stream has three channels and is scaled by the clip itself.
Streams keep the order of their pixels in memory, and are fastest in that of `planes`.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from latent_actions.encoder.inputs.camera_motion import steadied
from latent_actions.encoder.inputs.flow import dense_flow

_SMALLEST_SPREAD = 0.01  # of full scale: what is stiller than this is not amplified to 1


def planes(pixels: Tensor) -> Tensor:
    """(B, T, H, W, 3) -> the same, color after color in memory: (B, T, 3, H, W)."""
    return pixels.movedim(-1, 2).contiguous().movedim(2, -1)


def rgb(pixels: Tensor) -> Tensor:
    """Mean 0 and deviation 1 per clip and channel, so that light and tint drop out."""
    centered = pixels - pixels.mean(dim=(1, 2, 3), keepdim=True)
    count = centered[0, ..., 0].numel()
    # torch's own std over these axes takes several times longer on a CPU
    variance = centered.square().sum(dim=(1, 2, 3), keepdim=True) / (count - 1)
    return centered / (variance.sqrt() + _SMALLEST_SPREAD)


def difference(pixels: Tensor) -> Tensor:
    """Change to the next frame: the cheap stand-in for flow."""
    return _per_pair(pixels[:, 1:] - pixels[:, :-1])


def steady(pixels: Tensor) -> Tensor:
    """Change to the next frame once the camera's motion between the two is taken back; 0 where the next
    frame does not reach."""
    following, inside = steadied(pixels)
    return _per_pair((following - pixels[:, :-1]) * inside)


def flow(pixels: Tensor) -> Tensor:
    """Optical flow to the next frame, (x, y, length) in shares of the frame's width."""
    moved = dense_flow(pixels) / pixels.shape[-2]
    return _per_pair(torch.cat([moved, moved.norm(dim=-1, keepdim=True)], dim=-1))


def _per_pair(change: Tensor) -> Tensor:
    """(B, T - 1, H, W, 3) -> (B, T, H, W, 3), the last pair repeated, of root mean square 1 per clip:
    raw motion is a few percent of full scale and would be drowned by the colors.
    """
    size = change.square().mean(dim=(1, 2, 3, 4), keepdim=True).sqrt()
    change = change / (size + _SMALLEST_SPREAD)
    return change[:, [*range(change.shape[1]), -1]]


PIXEL_STREAMS: dict[str, Callable[[Tensor], Tensor]] = {
    "rgb": rgb, "diff": difference, "steady": steady, "flow": flow,
}  # fmt: skip


def stream(pixels: Tensor, name: str) -> Tensor:
    """One stream of PIXEL_STREAMS: (B, T, H, W, 3) in [0, 1] -> same shape."""
    return PIXEL_STREAMS[name](pixels)
