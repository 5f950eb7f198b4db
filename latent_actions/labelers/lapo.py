"""Labels after LAPO (arxiv.org/abs/2312.10812): pixel inverse and forward dynamics around a codebook.

A convolutional encoder reads both frames and gives K vectors, whose codes are the latent action; a small
U-Net predicts the change of the frame from the first frame and the codes. LAPO: IMPALA's encoder, vector
quantization with moving averages, a shared codebook (separate ones collapsed), a world model as U-Net.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from invact_vla.training.device import CPU
from latent_actions.labelers.guard.guarded import Prediction, TrainingStep
from latent_actions.labelers.labeler import (
    CODE_LENGTH,
    CODEBOOK_SIZE,
    FrameSpec,
    Labeler,
    LabelerConfig,
    TrainingFrames,
)
from latent_actions.labelers.trained import (
    CodeLabeler,
    FitConfig,
    fit_guarded,
    load_network,
    save_network,
    trained_part,
    training_ends,
)
from latent_actions.labelers.vector_quantizers import (
    Quantized,
    VectorQuantization,
    vector_quantizer,
)
from latent_actions.labelers.whitening import Whiten, ill_conditioned


@dataclass(frozen=True, kw_only=True)
class LapoModelConfig:
    """Sizes of the network."""

    size: int = 64  # side of the frames, pixels; a multiple of 8
    width: int = 32  # channels of the first stage; later ones have twice as many
    latent_dim: int = 4  # width of a code; 8 codes leave most of what is much wider
    code_length: int = CODE_LENGTH  # codes per pair
    codebook_size: int = CODEBOOK_SIZE  # values of a code
    quantizer: VectorQuantization = "ema"  # see vector_quantizers.py; LAPO: ema
    # decorrelate what the codes are cut from (see Whiten); LAPO does not: without it each position keeps
    # to a corner of its own, with one or two of the shared codes, or repeats another position
    whiten: bool = True

    def __post_init__(self) -> None:
        numbers = (self.size, self.width, self.latent_dim, self.code_length, self.codebook_size)
        if min(numbers) < 1 or self.size % 8 or max(numbers) > 1 << 16:
            raise ValueError("sizes must be positive, and size a multiple of 8")


@LabelerConfig.register_subclass("lapo")
@dataclass(frozen=True, kw_only=True)
class LapoConfig(LabelerConfig):
    """Pixel inverse and forward dynamics, trained on the training pairs."""

    trained: Path | None = None  # labeling run that trained one, or its model folder; none: train
    model: LapoModelConfig = field(default_factory=LapoModelConfig)  # what to train
    training: FitConfig = field(default_factory=FitConfig)  # how it is trained

    def parents(self) -> dict[str, Path]:
        return {} if self.trained is None else {"model": self.trained}

    def frame_spec(self) -> FrameSpec:
        return FrameSpec(self.model.size)

    def build(self, folder: Path, training: TrainingFrames, device: torch.device = CPU) -> Labeler:
        def train(place: Path) -> None:
            config = self.training
            frames, _ = training_ends(training, config.guard.max_static)
            torch.manual_seed(config.seed)
            model, sizes = LapoModel(self.model), (self.model.code_length, self.model.codebook_size)
            fit_guarded(model, *sizes, {"frames": frames}, config, folder, "lapo", device)
            save_network(model, self.model, place)

        place = trained_part(self.trained, folder, train)
        model = load_network(LapoModel, LapoModelConfig, place, device)
        sizes = (model.config.code_length, model.config.codebook_size)
        return CodeLabeler("lapo", model, sizes, place, torch.from_numpy, device)


class LapoModel(nn.Module):
    """Inverse and forward dynamics. Frames in: uint8 (B, 2, H, W, 3)."""

    def __init__(self, config: LapoModelConfig) -> None:
        super().__init__()
        self.config = config
        total = config.code_length * config.latent_dim
        self.inverse = PairEncoder(config.size, config.width, total)
        self.whiten = Whiten(total) if config.whiten else nn.Identity()
        self.quantizer = vector_quantizer(
            config.quantizer, config.code_length, config.codebook_size, config.latent_dim
        )
        self.forward_model = FrameDecoder(config.width, total)

    @property
    def reseedable(self) -> Tensor | None:
        """The codebook in which dead codes may move."""
        return self.quantizer.reseedable

    def forward(self, frames: Tensor) -> tuple[Quantized, Tensor]:
        """Latent action, and the predicted second frame (B, 3, H, W)."""
        pair = to_images(frames, self.config.size)
        quantized = self.quantizer(self._delta(pair))
        return quantized, self.forward_model(pair[:, :3], quantized.vectors.flatten(1))

    def training_step(self, batch: Mapping[str, Tensor]) -> TrainingStep:
        """Mean squared error of the second frame; see guarded.py."""
        pair = to_images(batch["frames"], self.config.size)
        first, second = pair[:, :3], pair[:, 3:]
        quantized, predicted = self(batch["frames"])
        error, copy = F.mse_loss(predicted, second), F.mse_loss(first, second).clamp_min(1e-9)
        return TrainingStep(
            loss=error + self.weight(copy) * (quantized.loss + ill_conditioned(self)),
            quantized=quantized,
            change=(second - first).abs().mean(dim=(1, 2, 3)),
            metrics={"r2_vs_copy": 1 - error.detach() / copy},
        )

    def weight(self, copy: Tensor) -> Tensor | float:
        """Of the quantizer's loss: in the units of the error where vectors are whitened, else as LAPO.
        copy: the error of the first frame."""
        return copy if self.config.whiten else 1.0

    def look_up(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        codes = self.codes(batch["frames"])
        return codes, self.quantizer.decode(codes)

    def predicted(self, batch: Mapping[str, Tensor], vectors: Tensor) -> Prediction:
        pair = to_images(batch["frames"], self.config.size)
        first, second = pair[:, :3], pair[:, 3:]
        guess = self.forward_model(first, vectors.flatten(1))
        return Prediction(first, second, guess, (second - first).abs().mean(dim=(1, 2, 3)))

    @torch.no_grad()
    def codes(self, frames: Tensor) -> Tensor:
        """Latent action of each pair: int64 (B, K)."""
        return self.quantizer.codes(self._delta(to_images(frames, self.config.size)))

    def _delta(self, pair: Tensor) -> Tensor:
        return rearrange(
            self.whiten(self.inverse(pair)), "b (k q) -> b k q", k=self.config.code_length
        )


class PairEncoder(nn.Module):
    """IMPALA's convolutional encoder (arxiv.org/abs/1802.01561) of two stacked frames, (B, 6, H, W) in
    [0, 1] -> (B, outputs)."""

    def __init__(self, size: int, width: int, outputs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 6
        for stage in (width, 2 * width, 2 * width):
            layers += [nn.Conv2d(channels, stage, 3, padding=1), nn.MaxPool2d(3, 2, 1)]
            layers += [ResidualBlock(stage), ResidualBlock(stage)]
            channels = stage
        flat = channels * (size // 8) ** 2
        self.layers = nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.Linear(flat, outputs))

    def forward(self, pair: Tensor) -> Tensor:
        return self.layers(pair - 0.5)


class ResidualBlock(nn.Module):
    """Two convolutions beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class FrameDecoder(nn.Module):
    """A U-Net of three levels; the action enters at the input and at the bottleneck, as in LAPO."""

    def __init__(self, width: int, action: int) -> None:
        super().__init__()
        self.enter = nn.Linear(action, width)
        self.middle = nn.Linear(action, 4 * width)
        self.start = nn.Conv2d(3, width, 3, padding=1)
        sizes = (width, 2 * width, 4 * width, 4 * width)
        pairs = list(itertools.pairwise(sizes))
        self.down = nn.ModuleList(nn.Conv2d(a, b, 4, 2, 1) for a, b in pairs)
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * b, a, 4, 2, 1) for a, b in reversed(pairs))
        self.head = nn.Conv2d(2 * width, 3, 3, padding=1)
        nn.init.zeros_(self.head.weight)  # the first prediction is the first frame itself
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)

    def forward(self, first: Tensor, action: Tensor) -> Tensor:
        """first: (B, 3, H, W); action: (B, A) -> the second frame, (B, 3, H, W)."""
        x = F.gelu(self.start(first) + self.enter(action)[:, :, None, None])
        levels = [x]
        for layer in self.down:
            levels.append(x := F.gelu(layer(x)))
        x = x + self.middle(action)[:, :, None, None]
        for layer in self.up:
            x = F.gelu(layer(torch.cat((x, levels.pop()), dim=1)))
        return first + self.head(torch.cat((x, levels.pop()), dim=1))


def to_images(frames: Tensor, size: int) -> Tensor:
    """uint8 (B, 2, H, W, 3) -> float (B, 6, size, size) in [0, 1]."""
    images = rearrange(frames, "b t h w c -> b (t c) h w").float() / 255.0
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True)
