"""Where a clip moves: the square around it, cut out of all frames, so that a hand of any size and place
is seen alike.

B clips, T frames, H W pixels of the whole frames, S pixels of what is cut out.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from latent_actions.encoder.inputs.camera_motion import steadied, view_grid

_SMALLEST = 0.4  # side of the square as a share of the frame, at least
_WIDTH = 4.0  # side of the square in standard deviations of where the motion is
_GRID = 32  # px: motion is looked for in frames of at most this size


def focused(pixels: Tensor, size: int) -> Tensor:
    """The same square of every frame: (B, T, H, W, 3) in [0, 1] -> float32 (B, T, S, S, 3), bilinear."""
    clips, times = pixels.shape[:2]
    theta = motion_square(pixels).repeat_interleave(times, dim=0)
    grid = view_grid(theta, size, size)
    flat = pixels.flatten(0, 1).permute(0, 3, 1, 2).float()
    found = F.grid_sample(flat, grid, padding_mode="border", align_corners=False)
    return found.unflatten(0, (clips, times)).permute(0, 1, 3, 4, 2)


@torch.no_grad()
def motion_square(pixels: Tensor) -> Tensor:
    """The square that holds most of what moves once the camera's motion is taken back, inside the frame:
    maps from it to the frame in coordinates of [-1, 1], float32 (B, 2, 3).
    """
    small = pixels.flatten(0, 1).permute(0, 3, 1, 2).float()
    if min(small.shape[-2:]) > _GRID:
        small = F.interpolate(small, (_GRID, _GRID), mode="area")
    small = small.permute(0, 2, 3, 1).unflatten(0, pixels.shape[:2])
    following, inside = steadied(small)
    change = ((following - small[:, :-1]) * inside).abs().mean(dim=(1, 4))[:, None]
    # strong motion counts: noise and parallax are everywhere
    energy = F.avg_pool2d(change, 3, stride=1, padding=1).square()
    energy = energy / energy.sum(dim=(1, 2, 3), keepdim=True).clamp_min(1e-9)
    whole = torch.eye(2, 3, device=pixels.device).repeat(len(pixels), 1, 1)
    places = view_grid(whole, *energy.shape[-2:])  # (B, h, w, 2)
    middle = (energy[:, 0, ..., None] * places).sum(dim=(1, 2))
    spread = (energy[:, 0, ..., None] * (places - middle[:, None, None]).square()).sum(dim=(1, 2))
    side = (_WIDTH / 2 * spread.mean(dim=1).sqrt()).clamp(_SMALLEST, 1.0)
    still = energy.sum(dim=(1, 2, 3)) < 0.5  # nothing moves at all
    side = torch.where(still, 1.0, side)
    room = (1 - side)[:, None]
    return torch.cat(
        [side[:, None, None] * whole[:, :, :2], torch.clamp(middle, -room, room)[..., None]], dim=2
    )
