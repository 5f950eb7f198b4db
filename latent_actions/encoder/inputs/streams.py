"""What of a clip's frames the encoder is shown: colors, frame differences (as they are, or without the
camera's motion), optical flow.

B clips, T frames, H W pixels; every stream has three channels and is scaled by the clip itself.
Streams are fastest of pixels in the order of `planes`.
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
    # frame by frame first: over all three axes, and by torch's own std, it takes several times longer
    length = torch.linalg.vector_norm(centered, dim=(2, 3), keepdim=True)
    length = torch.linalg.vector_norm(length, dim=1, keepdim=True)
    return centered / (length * (centered[0, ..., 0].numel() - 1) ** -0.5 + _SMALLEST_SPREAD)


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
    raw motion is a few percent of full scale and would be drowned by the colors. No gradient passes.
    """
    length = torch.linalg.vector_norm(change, dim=(1, 2, 3, 4), keepdim=True)
    clips, pairs, height, width, _ = change.shape
    scaled = change.new_empty(clips, pairs + 1, 3, height, width).movedim(2, -1)
    scale = length * change[0].numel() ** -0.5 + _SMALLEST_SPREAD
    torch.div(change.detach(), scale.detach(), out=scaled[:, :-1])
    scaled[:, -1] = scaled[:, -2]
    return scaled


PIXEL_STREAMS: dict[str, Callable[[Tensor], Tensor]] = {
    "rgb": rgb, "diff": difference, "steady": steady, "flow": flow,
}  # fmt: skip


class Streams:
    """Streams of PIXEL_STREAMS of some clips by name, each made once, when it is first asked for."""

    def __init__(self, pixels: Tensor) -> None:
        """pixels: (B, T, H, W, 3) float in [0, 1]."""
        self.pixels = pixels
        self._made: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        """(B, T, H, W, 3)."""
        if name not in self._made:
            self._made[name] = PIXEL_STREAMS[name](self.pixels)
        return self._made[name]
