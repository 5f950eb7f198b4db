"""Is a trained LAQ healthy? Measured on held-out pairs, and some of them drawn."""

from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from invact_vla.core.files import atomic_file
from latent_actions.labelers.guard.guarded import ModelReport, measure
from latent_actions.labelers.laq.model import LatentActionQuantizer, to_video

BATCH = 64
PICTURED = 8  # pairs in the grid


def evaluate(model: LatentActionQuantizer, frames: np.ndarray, seed: int) -> ModelReport:
    """Measure on held-out pairs, uint8 (N, 2, H, W, 3), where the model is."""
    parts = frame_batches(frames, model.device)
    return measure(model, parts, model.config.codebook_size, seed)


def frame_batches(frames: np.ndarray, device: torch.device) -> list[Tensor]:
    """uint8 (N, 2, H, W, 3) in parts, on a device."""
    starts = range(0, len(frames), BATCH)
    return [torch.from_numpy(np.array(frames[i : i + BATCH])).to(device) for i in starts]


@torch.no_grad()
def save_grid(model: LatentActionQuantizer, frames: np.ndarray, path: Path) -> None:
    """PNG of some pairs, evenly spaced over `frames`: first, second, predicted second frame."""
    from PIL import Image

    chosen = np.linspace(0, len(frames) - 1, min(PICTURED, len(frames))).astype(int)
    video = to_video(frames[chosen], model.device)
    predicted = model(video).reconstruction.clamp(0, 1)
    rows = torch.stack([video[:, :, 0], video[:, :, 1], predicted])
    sheet = rearrange(rows, "r n c h w -> (r h) (n w) c").mul(255).round().to(torch.uint8)
    with atomic_file(path) as temporary:
        Image.fromarray(sheet.cpu().numpy()).save(temporary, format="PNG")
