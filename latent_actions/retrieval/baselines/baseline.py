"""What a baseline is: a config that loads a network, and the one way from clips to vectors.

Published weights are read without trusting them, and fitted to our modules key by key: research
checkpoints are pickles that hold training arguments, configs and optimizers beside the tensors. The
reader (untrusted/torch_files.py) takes these as data, so no code of the file runs.

B clips, T frames, H W pixels, S size of the prepared frames, D width of a vector.
"""

import abc
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

import draccus
import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from invact_vla.core.errors import UserError
from invact_vla.core.limits import short, some
from invact_vla.training.device import CPU, Device, exact, resolve_device
from invact_vla.untrusted.torch_files import read_research_pickle, read_safetensors, without_prefix

Embed = Callable[[np.ndarray], np.ndarray]
Forward = Callable[[Tensor], Tensor]  # float (B, T, 3, S, S), normalized -> (B, D)
Pool = Literal["mean", "concat"]
Color = tuple[float, float, float]

IMAGENET: tuple[Color, Color] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP_COLORS: tuple[Color, Color] = (
    (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
)  # fmt: skip
KINETICS: tuple[Color, Color] = ((0.45, 0.45, 0.45), (0.225, 0.225, 0.225))
SIGNED: tuple[Color, Color] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # pixels in [-1, 1]
UNSCALED: tuple[Color, Color] = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))  # pixels in [0, 1]
_INSIDE = ("state_dict", "model_state", "model")  # where training loops keep the tensors
_SHOWN = 5  # differences named in an error


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """From decoded clips to what a network was trained on.

    frames: T, evenly spaced, ends included; a clip with fewer has frames repeated. size: S. resize:
    short side before the center crop, 0 = `size`. stretch: both sides to `size`, no crop. colors:
    mean and standard deviation of [0, 1] pixels."""

    frames: int
    size: int
    colors: tuple[Color, Color]
    resize: int = 0
    stretch: bool = False
    mode: Literal["bicubic", "bilinear"] = "bicubic"

    def __call__(self, clips: np.ndarray) -> Tensor:
        """uint8 (B, T', H, W, 3) -> float (B, T, 3, S, S); clipped again after bicubic overshoot."""
        picks = np.rint(np.linspace(0, clips.shape[1] - 1, self.frames)).astype(int)
        images = torch.from_numpy(np.ascontiguousarray(clips[:, picks]))
        images = rearrange(images, "b t h w c -> (b t) c h w").float() / 255
        sides, side = images.shape[-2:], self.resize or self.size
        wanted = [max(side, round(s * (side / min(sides)))) for s in sides]
        if self.stretch:
            wanted = [self.size, self.size]
        if wanted != list(sides):
            images = F.interpolate(images, wanted, mode=self.mode, antialias=True).clamp(0, 1)
        top, left = ((side - self.size) // 2 for side in images.shape[-2:])
        images = images[:, :, top : top + self.size, left : left + self.size]
        mean, std = (torch.tensor(c)[:, None, None] for c in self.colors)
        return rearrange((images - mean) / std, "(b t) c h w -> b t c h w", b=len(clips))


@dataclass(frozen=True, kw_only=True)
class BaselineConfig(draccus.ChoiceRegistry, abc.ABC):
    """Which published encoder, and where its weights are."""

    frames: int = 8  # frames per clip, evenly spaced; a clip with fewer repeats some
    batch_size: int = 8  # clips per forward pass

    def __post_init__(self) -> None:
        if min(self.frames, self.batch_size) < 1:
            raise ValueError(
                f"frames and batch_size must be >= 1: {self.frames}, {self.batch_size}"
            )

    @abc.abstractmethod
    def load(self, device: torch.device = CPU) -> tuple[Preprocess, Forward]:
        """Read the weights; gives the preprocessing, which runs on the CPU, and the network in eval
        mode on `device`.

        A missing file, or one whose keys or shapes are not the published ones, is a UserError."""


def name_of(config: BaselineConfig) -> str:
    """The registry's name of a config: what a table calls the baseline."""
    return BaselineConfig.get_choice_name(type(config))


def weights_of(config: BaselineConfig) -> dict[str, Path]:
    """The files and folders that a baseline is read from, by field."""
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    return {name: v for name, v in values.items() if isinstance(v, Path) and v.exists()}


def load_baseline(config: BaselineConfig, device: Device = CPU) -> Embed:
    """Load a baseline: a function uint8 (N, T, H, W, 3) -> float32 (N, D) of unit length.

    The function raises ValueError for anything but a non-empty array of such clips. The batch size
    changes a vector by rounding only. device: as in training/device.py."""
    device = resolve_device(device)
    prepare, forward = config.load(device)

    @torch.no_grad()
    @exact()
    def embed(clips: np.ndarray) -> np.ndarray:
        if clips.dtype != np.uint8 or clips.ndim != 5 or clips.shape[-1] != 3 or not len(clips):
            found = f"{clips.dtype} {clips.shape}"
            raise ValueError(f"expected uint8 clips (N, T, H, W, 3), N > 0, got {found}")
        starts = range(0, len(clips), config.batch_size)
        batches = (prepare(clips[i : i + config.batch_size]).to(device) for i in starts)
        vectors = [forward(batch) for batch in batches]
        return F.normalize(torch.cat(vectors).float(), dim=-1).cpu().numpy()

    return embed


def pool_frames(vectors: Tensor, pool: Pool) -> Tensor:
    """One vector per clip: (B, T, D) -> (B, D) for mean, (B, T D) for concat."""
    return vectors.mean(dim=1) if pool == "mean" else vectors.flatten(1)


def per_frame(network: Callable[[Tensor], Tensor], clips: Tensor) -> Tensor:
    """Apply an image network to every frame: (B, T, 3, S, S) -> (B, T, ...)."""
    outputs = network(rearrange(clips, "b t c h w -> (b t) c h w"))
    return outputs.unflatten(0, (clips.shape[0], clips.shape[1]))


@dataclass(frozen=True)
class KeyLayout:
    """How published names map to ours.

    rename: (published prefix, our prefix), the first that fits is applied; every name must fit one.
    unused: patterns of names that the clip vector does not need (text towers, heads, decoders)."""

    rename: tuple[tuple[str, str], ...] = (("", ""),)
    unused: tuple[str, ...] = ()

    def ours(self, state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
        """Published tensors under our names; UserError on names that the layout does not know."""
        found, unknown = {}, []
        for name, tensor in state.items():
            if any(re.match(pattern, name) for pattern in self.unused):
                continue
            new = next((n + name[len(o) :] for o, n in self.rename if name.startswith(o)), None)
            if new is None:
                unknown.append(name)
            else:
                found[new] = tensor
        if unknown:
            raise _differs(path, [f"unexpected {name}" for name in unknown])
        return found


@dataclass(frozen=True, kw_only=True)
class PublishedConfig(BaselineConfig):
    """A baseline whose network is ours, under the names of one published file."""

    weights: Path  # the published file
    size: int = 224  # frame size (px)

    layout: ClassVar[KeyLayout]
    preprocess: ClassVar[dict[str, Any]]  # the other fields of Preprocess

    @abc.abstractmethod
    def network(self) -> nn.Module:
        """The network on prepared clips: (B, T, 3, S, S) -> (B, D)."""

    def state(self) -> dict[str, Tensor]:
        """Tensors of the file, ready for the network's sizes."""
        return read_state(self.weights)

    def load(self, device: torch.device = CPU) -> tuple[Preprocess, Forward]:
        model = fit_weights(self.network(), self.state(), self.layout, self.weights, device)
        return Preprocess(frames=self.frames, size=self.size, **self.preprocess), model


def read_state(path: Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors, .pth, .pt, .pyth or .ckpt file, without a `module.` prefix.

    UserError if the file is missing, broken, or holds no tensors."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no weights file {path}: download it (docs/baselines.md says where from)")
    read = read_safetensors if path.suffix == ".safetensors" else read_research_pickle
    raw: Any = read(path)
    if not isinstance(raw, dict):
        raise UserError(f"{path}: expected a dictionary of tensors, got {type(raw).__name__}")
    inside = next((raw[k] for k in _INSIDE if isinstance(raw.get(k), dict) and raw[k]), raw)
    named = {n: v for n, v in inside.items() if isinstance(n, str) and isinstance(v, Tensor)}
    state = without_prefix(named)
    if not state:
        raise UserError(f"{path} holds no tensors (its entries: {some(map(str, raw))})")
    return state


def fit_weights(
    model: nn.Module, state: dict[str, Tensor], layout: KeyLayout, path: Path,
    device: torch.device = CPU,
) -> nn.Module:  # fmt: skip
    """Load published tensors strictly; gives the module in eval mode, in fp32, on `device`.

    A missing, unknown or misshapen tensor is a UserError that names the first few (our names)."""
    came, expected = layout.ours(state, path), model.state_dict()
    problems = [f"missing {name}" for name in expected if name not in came]
    problems += [f"unexpected {name}" for name in came if name not in expected]
    problems += [
        f"{name} is {tuple(came[name].shape)}, not {tuple(expected[name].shape)}"
        for name in expected.keys() & came.keys()
        if came[name].shape != expected[name].shape
    ]
    if problems:
        raise _differs(path, problems)
    ready = {k: v.float() if v.is_floating_point() else v for k, v in came.items()}
    model.load_state_dict(ready, assign=True)  # the module may have no memory of its own
    return model.to(device).eval().requires_grad_(False)


def _differs(path: Path, problems: list[str]) -> UserError:
    shown = "; ".join(map(short, sorted(problems)[:_SHOWN]))
    return UserError(
        f"{path} does not have the published layout ({len(problems)} differences): {shown}; "
        "check that it is the file named in docs/baselines.md and that the config gives its sizes"
    )
