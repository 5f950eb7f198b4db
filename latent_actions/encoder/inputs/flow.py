"""Dense optical flow of consecutive frames without a network: iterative, pyramidal Lucas-Kanade.

Lucas & Kanade 1981 solved at every pixel over a small window, coarse to fine (Bouguet 2001), all
frame pairs of all clips at once. Flat places, where the window says nothing, get no flow. Small
beside a learned flow (RAFT), and enough to tell what moves where.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_WINDOW = 7  # pixels of the side of the least-squares window
_SMALLEST_LEVEL = 12  # pixels: coarser frames are not made
_LEVELS = 4  # at most: the coarsest sees motions of about 2^3 * 3 pixels
_ITERATIONS = 4  # at each level
_DAMPING = 1e-6  # of the structure tensor, frames in [0, 1]: gradients below 0.1 % count as flat
_LUMINANCE = (0.299, 0.587, 0.114)


@torch.no_grad()
def dense_flow(pixels: Tensor) -> Tensor:
    """Flow to the next frame in pixels: (B, T, H, W, 3) in [0, 1] -> fp32 (B, T - 1, H, W, 2), x
    to the right and y down. No gradient passes.
    """
    gray = (pixels.float() * pixels.new_tensor(_LUMINANCE, dtype=torch.float32)).sum(dim=-1)
    clips, frames = gray.shape[:2]
    first, second = (part.flatten(0, 1)[:, None] for part in (gray[:, :-1], gray[:, 1:]))
    flow = pairwise_flow(first, second).permute(0, 2, 3, 1)
    return flow.unflatten(0, (clips, frames - 1))


def pairwise_flow(first: Tensor, second: Tensor) -> Tensor:
    """(P, 1, H, W) twice -> (P, 2, H, W) with second(x + flow) = first(x)."""
    pyramid = [(first, second)]
    while len(pyramid) < _LEVELS and min(pyramid[-1][0].shape[-2:]) >= 2 * _SMALLEST_LEVEL:
        pyramid.append((F.avg_pool2d(pyramid[-1][0], 2), F.avg_pool2d(pyramid[-1][1], 2)))
    coarsest = pyramid[-1][0]
    flow = coarsest.new_zeros(len(coarsest), 2, *coarsest.shape[-2:])
    for frames in reversed(pyramid):
        size = frames[0].shape[-2:]
        if flow.shape[-2:] != size:
            flow = 2 * F.interpolate(flow, size, mode="bilinear", align_corners=False)
        flow = _refine(*frames, flow)
    return flow


def _refine(first: Tensor, second: Tensor, flow: Tensor) -> Tensor:
    """Lucas-Kanade steps at one level, on blurred frames: differences of raw ones mistake fine
    texture for flatter than it is, and the steps overshoot.
    """
    first, second = _blur(first), _blur(second)
    dx, dy = _gradients(first)
    xx, xy, yy = (_window(product) for product in (dx * dx, dx * dy, dy * dy))
    xx, yy = xx + _DAMPING, yy + _DAMPING
    determinant = xx * yy - xy * xy
    for _ in range(_ITERATIONS):
        # each pixel of the window votes with its own flow so far, as in Farneback 2003
        shift = dx * flow[:, :1] + dy * flow[:, 1:] - (_warp(second, flow) - first)
        x, y = _window(dx * shift), _window(dy * shift)
        flow = torch.cat([yy * x - xy * y, xx * y - xy * x], dim=1) / determinant
    return flow


def _gradients(frames: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences along x and y, (P, 1, H, W) each."""
    padded = F.pad(frames, (1, 1, 1, 1), mode="replicate")
    dx = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    dy = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    return dx, dy


def _blur(frames: Tensor) -> Tensor:
    """Twice the mean of 3 x 3."""
    for _ in range(2):
        frames = F.avg_pool2d(frames, 3, stride=1, padding=1, count_include_pad=False)
    return frames


def _window(values: Tensor) -> Tensor:
    return F.avg_pool2d(values, _WINDOW, stride=1, padding=_WINDOW // 2, count_include_pad=False)


def _warp(frames: Tensor, flow: Tensor) -> Tensor:
    """frames at x + flow, bilinear; beyond the edge its last pixel."""
    height, width = frames.shape[-2:]
    y, x = torch.meshgrid(
        torch.arange(height, device=flow.device), torch.arange(width, device=flow.device),
        indexing="ij",
    )  # fmt: skip
    x, y = (x + flow[:, 0]) * 2 / (width - 1) - 1, (y + flow[:, 1]) * 2 / (height - 1) - 1
    places = torch.stack([x, y], dim=-1)
    return F.grid_sample(frames, places, padding_mode="border", align_corners=True)
