"""VILA, view-invariant latent actions (arxiv.org/abs/2601.02994): our own form of it.

No code or weights are public, and its objective needs robot actions, which human video has not. Kept
are its parts: a frame encoder, an inverse model that infers the latent action of a frame pair, a
forward model that predicts the later frame's features (of a slowly following copy of the encoder),
and a contrast that pulls equal actions together over views. Here actions are equal when they have
the same verb. The clip vector is the mean latent action. `invact encoder vila` trains it on the clips
that InvAct trains on:

    <out>/vila/          config.json, model.safetensors (baseline `type: vila`)
    <out>/metrics.jsonl  losses

B clips, T frames, S frame size (px), d width of frame features, D width of a latent action.
"""

from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from safetensors.torch import save_file
from torch import Tensor, nn

from invact_vla.core.files import atomic_folder, read_json, write_json
from invact_vla.core.run_folder import open_run
from invact_vla.training.device import CPU, stage_device
from invact_vla.training.loop import LoopConfig, fit
from invact_vla.untrusted.model_config import decode_config, on_meta
from latent_actions.encoder.inputs import sprites  # noqa: F401  registers the data source
from latent_actions.encoder.inputs.augment import AugmentConfig
from latent_actions.encoder.inputs.batches import ClipBatches, ClipTextConfig
from latent_actions.encoder.inputs.clips import ClipData, VideoClips
from latent_actions.encoder.inputs.sampler import SamplerConfig
from latent_actions.encoder.losses import multi_positive_infonce
from latent_actions.encoder.model import Batch
from latent_actions.labelers.labeler import subfolder_or_self
from latent_actions.retrieval.baselines.baseline import (
    SIGNED,
    BaselineConfig,
    Forward,
    KeyLayout,
    Preprocess,
    fit_weights,
    read_state,
)

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
            raise ValueError(f"size must be a multiple of {2**_STRIDES}, channels of {_GROUPS}")
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
        items of the same verb are positives, all others negatives."""
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
            write_json(temporary / "config.json", asdict(self.shape))
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


@dataclass(frozen=True, kw_only=True)
class VilaTrainConfig:
    """Training of our VILA."""

    out: Path  # run folder
    data: ClipData = field(default_factory=VideoClips)  # clips; those of the train split are used
    model: VilaShape = field(default_factory=VilaShape)  # sizes and loss
    sampler: SamplerConfig = field(default_factory=SamplerConfig)  # how batches are drawn
    augment: AugmentConfig = field(default_factory=AugmentConfig)  # crops and colors
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=1000, batch_size=128))  # loop
    workers: int = 2  # decoding processes
    seed: int = 0  # weights, batches and augmentation
    overwrite: bool = False  # replace a run folder of another config
    device: str = "auto"  # where it is trained: auto | cpu | cuda | cuda:N | mps


def main(config: VilaTrainConfig) -> Path:
    """Train and save; returns the run folder."""
    run = open_run(
        config.out, config, inputs=config.data.parents(), overwrite=config.overwrite,
        seed=config.seed,
    )  # fmt: skip
    if run.finished:
        return run.folder
    shape, folder = config.model, run.folder / "frames"
    table = config.data.table(shape.frames, folder, config.workers, ("train",))
    batches = ClipBatches(
        table, table.rows_of("train"), size=shape.size, sampler=config.sampler,
        augmentation=config.augment, text=ClipTextConfig(), seed=config.seed,
    )  # fmt: skip
    torch.manual_seed(config.seed)
    model = Vila(shape)
    loop = replace(config.loop, seed=config.seed)
    fit(
        model, lambda model, batch, step: model(batch), lambda step: batches(step, loop.batch_size),
        loop, run.folder, after_step=_follow, description="train VILA",
        device=stage_device(run, config.device),
    )  # fmt: skip
    model.save_pretrained(run.folder / PART)
    run.finish({"parameters": sum(p.numel() for p in model.parameters() if p.requires_grad)})
    return run.folder


def _follow(model: nn.Module, step: int, metrics: dict[str, float]) -> None:
    assert isinstance(model, Vila)
    model.follow()
