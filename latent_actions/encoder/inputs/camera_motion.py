"""What the camera did between two frames, as one affine map of the whole picture, and the next frame
with that taken back: what still differs is what moved by itself, and parallax.

The map starts from the shift that phase correlation finds (Kuglin & Hines 1975), or from none if that
fits better, and is refined by Gauss-Newton steps with weights that fall with a pixel's error
(iteratively reweighted least squares), so that a hand that moves against the background has little say.
All at half the frame's size, all pairs of all clips at once.

B clips, T frames, H W pixels, P = B (T - 1) pairs, N pixels of half the size.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_STEPS = 3  # of Gauss-Newton
_DAMPING = 1e-3  # on the diagonal of the normal equations, frames in [0, 1]
_OUTLIER = 1.5  # times the pair's mean error: an error at which a pixel counts half
_WORST = 0.5  # share of the frame that the camera may move by; beyond it the pair is left as it is


@torch.no_grad()
def steadied(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The next frames as the camera of the frame before would see them.

    pixels: (B, T, H, W, 3) in [0, 1] -> (B, T - 1, H, W, 3), and bool (B, T - 1, H, W, 1), whether a
    pixel lies in the next frame at all. No gradient passes.
    """
    clips, frames, height, width = pixels.shape[:4]
    with torch.autocast(pixels.device.type, enabled=False):
        gray = pixels.float().mean(dim=-1)
        half = F.avg_pool2d(gray.flatten(0, 1)[:, None], 2).unflatten(0, (clips, frames))
        theta = affine_between(half[:, :-1].flatten(0, 1), half[:, 1:].flatten(0, 1))
        grid = view_grid(theta, height, width)
        following = pixels[:, 1:].flatten(0, 1).permute(0, 3, 1, 2).float()
        seen = F.grid_sample(following, grid, padding_mode="border", align_corners=False)
        inside = (grid.abs() <= 1).all(dim=-1, keepdim=True)
    shape = (clips, frames - 1)
    return seen.permute(0, 2, 3, 1).unflatten(0, shape), inside.unflatten(0, shape)


def affine_between(first: Tensor, second: Tensor) -> Tensor:
    """Maps theta (P, 2, 3), in coordinates of [-1, 1], with second(theta x) = first(x) as far as one map
    can; the identity where none fits better. first, second: (P, 1, h, w) in [0, 1].
    """
    still = torch.eye(2, 3, device=first.device).repeat(len(first), 1, 1)
    theta = still.clone()
    theta[:, :, 2] = _shift(first, second)
    theta = _better(theta, still, first, second)
    x, y = view_grid(still[:1], *first.shape[-2:])[0].flatten(0, 1).T  # (N,) each
    for _ in range(_STEPS):
        moved = _warp(second, theta)
        dx, dy = _gradients(moved)
        error = (moved - first).flatten(1)
        slopes = torch.stack([dx, dx * x, dx * y, dy, dy * x, dy * y], dim=1)  # (P, 6, N)
        size = _OUTLIER * error.abs().mean(dim=1, keepdim=True) + 1e-4
        weighted = slopes * (1 / (1 + (error / size).square()))[:, None]
        normal = weighted @ slopes.transpose(1, 2)
        normal = normal + _DAMPING * torch.eye(6, device=normal.device)
        step = torch.linalg.solve(normal, -(weighted @ error[..., None]))[..., 0]
        update = still.clone()
        update[:, :, 2] += step[:, [0, 3]]
        update[:, :, :2] += step[:, [1, 2, 4, 5]].unflatten(1, (2, 2))
        theta = _after(theta, update)
    return _better(theta, still, first, second)


def view_grid(theta: Tensor, height: int, width: int) -> Tensor:
    """Where each pixel is seen through maps (P, 2, 3), for grid_sample: (P, height, width, 2). As
    F.affine_grid without aligned corners, and a tenth of its time on a CPU."""
    x, y = (
        (torch.arange(size, device=theta.device) + 0.5) * (2 / size) - 1 for size in (width, height)
    )
    across = theta[:, None, None, :, 0] * x[:, None]
    along = theta[:, None, None, :, 1] * y[:, None, None] + theta[:, None, None, :, 2]
    return across + along


def _shift(first: Tensor, second: Tensor) -> Tensor:
    """Whole-pixel shift of the picture by phase correlation, in coordinates of [-1, 1]: (P, 2)."""
    height, width = first.shape[-2:]
    window = torch.outer(_hann(height, first.device), _hann(width, first.device))
    spectra = [
        torch.fft.rfft2((part[:, 0] - part.mean(dim=(1, 2, 3))[:, None, None]) * window)
        for part in (first, second)
    ]
    cross = spectra[0].conj() * spectra[1]
    peaks = torch.fft.irfft2(cross / (cross.abs() + 1e-6), (height, width)).flatten(1).argmax(dim=1)
    rows, columns = peaks // width, peaks % width
    rows = torch.where(rows > height // 2, rows - height, rows)
    columns = torch.where(columns > width // 2, columns - width, columns)
    return torch.stack([2 * columns / width, 2 * rows / height], dim=1)


def _better(theta: Tensor, other: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Of two maps of each pair the one that fits better, if it moves no corner too far."""
    errors = [
        (_warp(second, map_) - first).abs().sqrt().mean(dim=(1, 2, 3)) for map_ in (theta, other)
    ]
    sane = (theta - torch.eye(2, 3, device=theta.device)).abs().amax(dim=(1, 2)) < 2 * _WORST
    return torch.where(((errors[0] < errors[1]) & sane)[:, None, None], theta, other)


def _after(theta: Tensor, update: Tensor) -> Tensor:
    """theta (update x): (P, 2, 3)."""
    linear = theta[:, :, :2] @ update[:, :, :2]
    return torch.cat([linear, theta[:, :, :2] @ update[:, :, 2:] + theta[:, :, 2:]], dim=2)


def _warp(frames: Tensor, theta: Tensor) -> Tensor:
    grid = view_grid(theta, *frames.shape[-2:])
    return F.grid_sample(frames, grid, padding_mode="border", align_corners=False)


def _gradients(frames: Tensor) -> tuple[Tensor, Tensor]:
    """Slopes along x and y for a step of one unit of [-1, 1]: (P, N) each."""
    padded = F.pad(frames, (1, 1, 1, 1), mode="replicate")
    dx = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) * frames.shape[-1] / 4
    dy = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) * frames.shape[-2] / 4
    return dx.flatten(1), dy.flatten(1)


def _hann(size: int, device: torch.device) -> Tensor:
    return torch.hann_window(size, periodic=False, device=device)
