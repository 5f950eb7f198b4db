"""Frozen image features as an input stream: patch tokens of a vision transformer, frame by frame.

Any model of transformers whose last hidden state ends in a square of patch tokens will do: DINOv2,
DINOv3, CLIP's vision tower, ViT. It is no part of the encoder's parameters: it is never trained,
averaged or sharded, and is saved as a folder of its own beside the encoder.
"""

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from invact_vla.core.errors import UserError
from invact_vla.core.files import read_json
from invact_vla.core.limits import short
from latent_actions.published_model import published_model

# of ImageNet, for folders that do not say how their images are scaled
_LARGEST = 1 << 14  # numbers of a feature, pixels of an image
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class FrozenFeatures:
    """Patch features of a pretrained image model. width: of a feature."""

    def __init__(self, folder: str) -> None:
        """folder: a local folder in transformers' layout, read as in published_model.py."""
        from transformers import AutoModel

        if not (Path(folder) / "config.json").is_file():
            raise UserError(
                f"stream features needs the folder of a vision model of transformers, got "
                f"{folder!r}, which has no config.json; set model.features"
            )
        model = published_model(AutoModel, folder)
        self.model = getattr(model, "vision_model", model)
        self.width, self.size, self.patch = (
            _size(self.model.config, name) for name in ("hidden_size", "image_size", "patch_size")
        )
        self.scaling = _scaling(Path(folder) / "preprocessor_config.json")

    @torch.no_grad()
    def __call__(self, pixels: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """(B, T, H, W, 3) in [0, 1] -> features averaged onto the token grid, (B, T' H' W', width).
        Frames are resized to the model's own size; T' divides T.
        """
        self.model.to(pixels.device)
        frames = rearrange(pixels.float(), "b t h w c -> (b t) c h w")
        size = (self.size, self.size)
        frames = F.interpolate(frames, size, mode="bilinear", align_corners=False, antialias=True)
        mean, std = (frames.new_tensor(part)[:, None, None] for part in self.scaling)
        found = self.model((frames - mean) / std).last_hidden_state
        side = self.size // self.patch
        maps = rearrange(found[:, -(side**2) :], "n (h w) d -> n d h w", h=side)
        maps = F.adaptive_avg_pool2d(maps.float(), grid[1:])
        return rearrange(maps, "(b t a) d h w -> a b (t h w) d", b=len(pixels), t=grid[0]).mean(0)

    def save(self, folder: Path) -> None:
        """Write weights, config and scaling in transformers' layout."""
        self.model.save_pretrained(folder)
        scaling = dict(zip(("image_mean", "image_std"), self.scaling, strict=True))
        (folder / "preprocessor_config.json").write_text(json.dumps(scaling) + "\n")


def _size(config: Any, name: str) -> int:
    value = getattr(config, name, None)
    if type(value) is not int or not 0 < value <= _LARGEST:
        raise UserError(f"features: expected an image model, its {name} is {short(repr(value))}")
    return value


def _scaling(path: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of the channels that the model was trained with."""
    found = read_json(path) if path.is_file() else {}
    found = found if isinstance(found, dict) else {}
    parts = [found.get("image_mean", _MEAN), found.get("image_std", _STD)]
    for part in parts:
        numbers = isinstance(part, list | tuple) and all(isinstance(n, int | float) for n in part)
        if not numbers or len(part) != 3:
            raise UserError(f"{path}: expected three numbers of image_mean and of image_std")
    return tuple(parts[0]), tuple(parts[1])
