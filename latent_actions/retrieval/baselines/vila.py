"""VILA, view-invariant latent actions (arxiv.org/abs/2601.02994): our own form of it.

No code or weights are public, and its objective needs robot actions, which human video has not. Kept
are its parts: a frame encoder, an inverse model that infers the latent action of a frame pair, a
forward model that predicts the later frame's features (of a slowly following copy of the encoder),
and a contrast that pulls equal actions together over views. Here actions are equal when they have
the same verb. `invact encoder vila` trains it; the clip vector is the mean latent action.

B clips, T frames, S frame size (px), d width of frame features, D width of a latent action.
"""

import dataclasses
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from safetensors.torch import save_file
from torch import Tensor, nn

from invact_vla.core.files import atomic_folder, read_json, write_json
from invact_vla.training.device import CPU
from invact_vla.untrusted.model_config import decode_config, on_meta
from latent_actions.encoder.losses import multi_positive_infonce
from latent_actions.encoder.model import Batch
from latent_actions.labelers.labeler import subfolder_or_self
from latent_actions.retrieval.baselines.baseline import (
    SIGNED,
    BaselineConfig,
    Forward,
    Preprocess,
)
from latent_actions.retrieval.baselines.weights import KeyLayout, fit_weights, read_state

PART = "vila"  # folder of a training run that holds the model
MAX_FRAMES = 1024
MOMENTUM = 0.99  # of the encoder's slowly following copy
_STRIDES = 4  # convolutions, each halves the side
_GROUPS = 8  # of the normalizations


@dataclass(frozen=True, kw_only=True)
class VilaShape:
    """Sizes and loss of the model."""

    size: int = 64  # S, frame size (px), a multiple of 16
    frames: int = 8  # T, frames per clip
    channels: int = 32  # of the first convolution; the others double, up to 4x
    width: int = 256  # of tokens, d
    latent: int = 128  # of the latent, D
    offset: int = 3  # largest distance of a pair, in frames; drawn in [1, this]
    contrast: float = 1.0  # weight of the contrast over views
    temperature: float = 0.1  # of the contrast

    def __post_init__(self) -> None:
        if min(self.size, self.channels, self.width, self.latent) < 1 or self.frames > MAX_FRAMES:
            raise ValueError(f"sizes must be at least 1 and frames at most {MAX_FRAMES}")
        if self.size % 2**_STRIDES or self.channels % _GROUPS:
            raise ValueError(
                f"size must be a multiple of {2**_STRIDES} and channels of {_GROUPS}, "
                f"got {self.size} and {self.channels}"
            )
        if not 1 <= self.offset < self.frames:
            raise ValueError(f"expected 1 <= offset < frames, got {self.offset} and {self.frames}")
        if self.contrast < 0 or self.temperature <= 0:
            raise ValueError("expected contrast >= 0 and temperature > 0")


def _frame_encoder(shape: VilaShape) -> nn.Sequential:
    """(B, 3, S, S) -> (B, d)."""
    layers: list[nn.Module] = []
    inside = 3
    for i in range(_STRIDES):
        out = shape.channels * min(2**i, 4)
        layers += [nn.Conv2d(inside, out, 3, 2, 1), nn.GroupNorm(_GROUPS, out), nn.GELU()]
        inside = out
    side = shape.size // 2**_STRIDES
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(inside * side**2, shape.width))


def _two_layers(inside: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inside, 2 * hidden), nn.LayerNorm(2 * hidden), nn.GELU(),
        nn.Linear(2 * hidden, out),
    )  # fmt: skip


class Vila(nn.Module):
    """Frame encoder, its following copy, inverse and forward model."""

    def __init__(self, shape: VilaShape) -> None:
        super().__init__()
        self.shape = shape
        self.encoder = _frame_encoder(shape)
        self.target = deepcopy(self.encoder).requires_grad_(False)
        self.inverse = _two_layers(2 * shape.width, shape.width, shape.latent)
        self.forward_model = _two_layers(shape.width + shape.latent, shape.width, shape.width)

    def latent(self, first: Tensor, second: Tensor) -> Tensor:
        """Frame features (B, d) x2 -> the latent action of the pair, (B, D)."""
        return self.inverse(torch.cat([first, second], dim=-1))

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of one batch on one drawn pair of frames, and what to log.

        Prediction: mean squared error to the copy's features, normalized to unit variance. Contrast:
        items of the same verb are positives, all others negatives.
        """
        shape = self.shape
        apart = int(torch.randint(1, shape.offset + 1, ()))
        start = int(torch.randint(batch.pixels.shape[1] - apart, ()))
        early, late = (batch.pixels[:, i].movedim(-1, 1) * 2 - 1 for i in (start, start + apart))
        first, second = self.encoder(early), self.encoder(late)
        action = self.latent(first, second)
        predicted = self.forward_model(torch.cat([first, action], dim=-1))
        with torch.no_grad():
            wanted = F.layer_norm(self.target(late), (shape.width,))
        prediction = F.mse_loss(predicted.float(), wanted.float())
        contrast = self._contrast(action.float(), batch.items.verb)
        total = prediction + shape.contrast * contrast
        return total, {"prediction": prediction.detach(), "contrast": contrast.detach()}

    def _contrast(self, action: Tensor, verb: Tensor) -> Tensor:
        """Multi-positive InfoNCE of the latent actions, without each item's own similarity."""
        unit = F.normalize(action, dim=-1)
        itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
        similarity = (unit @ unit.T / self.shape.temperature).masked_fill(itself, -1e4)
        same = (verb[:, None] == verb[None]) & ~itself
        kept = same.any(dim=1)
        if not kept.any():
            return similarity.sum() * 0
        return multi_positive_infonce(similarity[kept], same[kept])

    @torch.no_grad()
    def follow(self) -> None:
        """Move the copy a little towards the encoder; called after every step."""
        for slow, fast in zip(self.target.parameters(), self.encoder.parameters(), strict=True):
            slow.lerp_(fast, 1 - MOMENTUM)

    def embed(self, clips: Tensor) -> Tensor:
        """(B, T, 3, S, S) in [-1, 1] -> mean latent action of consecutive frames, (B, D)."""
        features = self.encoder(rearrange(clips, "b t c h w -> (b t) c h w"))
        features = features.unflatten(0, clips.shape[:2])
        return self.latent(features[:, :-1], features[:, 1:]).mean(dim=1)

    def save_pretrained(self, folder: Path) -> None:
        """Write config.json and model.safetensors, atomically."""
        with atomic_folder(Path(folder)) as temporary:
            write_json(temporary / "config.json", dataclasses.asdict(self.shape))
            save_file(self.state_dict(), temporary / "model.safetensors")


@BaselineConfig.register_subclass("vila")
@dataclass(frozen=True, kw_only=True)
class VilaConfig(BaselineConfig):
    """Our VILA. `frames` is ignored: the folder says how many it reads."""

    run: Path  # run of `invact encoder vila`, or its model folder
    batch_size: int = 64  # clips per forward pass

    def load(self, device: torch.device = CPU) -> tuple[Preprocess, Forward]:
        folder = subfolder_or_self(self.run, PART)
        what = f"{folder}/config.json is not that of a VILA"
        shape = decode_config(VilaShape, read_json(folder / "config.json"), what)
        weights = folder / "model.safetensors"
        model = on_meta(lambda: Vila(shape), what)
        fit_weights(model, read_state(weights), KeyLayout(), weights, device)
        prepare = Preprocess(
            frames=shape.frames, size=shape.size, stretch=True, colors=SIGNED, mode="bilinear"
        )
        return prepare, model.embed
