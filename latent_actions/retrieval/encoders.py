"""Encoders under evaluation, and the two references that say what a number is worth: the same
architecture with random weights, and raw pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from invact_vla.core.errors import UserError
from invact_vla.training.device import CPU, Device, exact, resolve_device
from latent_actions.encoder.duration import with_duration
from latent_actions.encoder.encoder import InvActEncoder
from latent_actions.encoder.encoder_config import EncoderConfig
from latent_actions.encoder.inputs.language import LanguageHead, text_features

Embed = Callable[[np.ndarray], np.ndarray]  # uint8 (N, T, H, W, 3) -> float (N, D)
EmbedTexts = Callable[[Sequence[str]], np.ndarray]  # K texts -> float (K, D)
_PIXEL_GRID = 8  # side of the pictures that the pixel baseline compares
_BATCH = 64


@dataclass(frozen=True)
class Tokens:
    """What an encoder holds besides its embedding, of N clips.

    action: float32 (N, k), as the head reads it; token: float32 (N, d), the same before it is
    projected to k numbers; registers: float32 (N, R * d); committed: int64 (N, T', H', W'), 0 where
    a patch is committed to the action token."""

    action: np.ndarray
    token: np.ndarray
    registers: np.ndarray
    committed: np.ndarray


@dataclass(frozen=True, kw_only=True)
class EvaluatedEncoder:
    """One encoder under evaluation. Benchmarks that need what it lacks leave it out, and say so."""

    name: str
    embed: Embed
    tokens: Callable[[np.ndarray], Tokens] | None = None  # of an encoder with commit blocks
    texts: EmbedTexts | None = None
    duration_weight: float = 0.0  # of the durations of clips where they are compared
    only_durations: bool = False  # the control that looks at nothing else

    def timed(self, vectors: np.ndarray, seconds: np.ndarray | None) -> np.ndarray:
        """Vectors (N, D) of clips with their durations (N,) beside them; as they are without a weight or
        where durations are not known, which is an error of the control."""
        if self.only_durations and seconds is None:
            raise UserError("the durations of these clips are not known")
        if not self.duration_weight or seconds is None:
            return vectors
        return with_duration(vectors, seconds, self.duration_weight)

    def of_frames(self, clips: np.ndarray) -> np.ndarray:
        """Mean vector of the single frames, each shown as a still clip: blind to their order."""
        count = clips.shape[1]
        parts = [self.embed(np.repeat(clips[:, [t]], count, axis=1)) for t in range(count)]
        return np.mean(parts, axis=0)


def embed_all(encoder: EvaluatedEncoder, frames: np.ndarray, batch: int = 256) -> np.ndarray:
    """Vectors of a memory-mapped array of clips, a batch at a time: float (N, D)."""
    starts = range(0, len(frames), batch)
    return np.concatenate([encoder.embed(np.array(frames[i : i + batch])) for i in starts])


def trained(path: Path, name: str = "encoder", device: Device = CPU) -> EvaluatedEncoder:
    """The encoder of a training run's folder, with its text side, or of a bare encoder folder."""
    encoder = InvActEncoder.from_pretrained(encoder_folder(path), device)
    texts, language = None, path / "language"
    if language.is_dir():
        texts = text_side(LanguageHead.from_pretrained(language, device))
    return evaluated(encoder, name, texts)


def evaluated(
    encoder: InvActEncoder, name: str, texts: EmbedTexts | None = None
) -> EvaluatedEncoder:
    """An encoder object, to be evaluated."""
    has_tokens = len(encoder.commit_blocks) > 0 and encoder.config.commit.registers > 0
    tokens = (lambda clips: token_states(encoder, clips)) if has_tokens else None
    return EvaluatedEncoder(
        name=name, embed=encoder.embed, tokens=tokens, texts=texts,
        duration_weight=encoder.config.duration_weight,
    )  # fmt: skip


def text_side(head: LanguageHead) -> EmbedTexts:
    """K texts -> float32 (K, D) of unit length."""

    @torch.no_grad()
    @exact()
    def embed(texts: Sequence[str]) -> np.ndarray:
        features = torch.from_numpy(text_features(texts, head.project.in_features))
        return head(features.to(head.project.weight.device)).cpu().numpy()

    return embed


@torch.no_grad()
@exact()
def token_states(encoder: InvActEncoder, clips: np.ndarray) -> Tokens:
    """Action token, registers and committed patches of clips, uint8 (N, T, H, W, 3)."""
    found: list[tuple[np.ndarray, ...]] = []
    for start in range(0, len(clips), _BATCH):
        encoded = encoder.evaluated(torch.from_numpy(np.array(clips[start : start + _BATCH])))
        states = (encoded.action, encoded.token, encoded.registers.flatten(1))
        committed = encoder.committed_places(encoded).cpu().numpy()
        found.append((*(state.float().cpu().numpy() for state in states), committed))
    return Tokens(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def references(config: EncoderConfig, seed: int, device: Device = CPU) -> list[EvaluatedEncoder]:
    """Random weights of the same architecture, the same on every device, and raw pixels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        untrained = InvActEncoder(config).to(resolve_device(device)).eval()
    return [
        evaluated(untrained, "random weights"), EvaluatedEncoder(name="pixels", embed=pixel_embedding)
    ]  # fmt: skip


def duration_alone(weight: float) -> EvaluatedEncoder:
    """What the durations of clips say without anything that is seen in them."""
    return EvaluatedEncoder(
        name="duration alone", embed=lambda clips: np.zeros((len(clips), 1), np.float32),
        duration_weight=weight, only_durations=True,
    )  # fmt: skip


def pixel_embedding(frames: np.ndarray) -> np.ndarray:
    """All frames shrunk to 8 x 8, the clip's mean color removed: uint8 (N, T, H, W, 3) -> float32
    (N, T*192)."""
    parts = [_few_pixels(frames[i : i + _BATCH]) for i in range(0, len(frames), _BATCH)]
    return np.concatenate(parts) if parts else _few_pixels(frames)


def _few_pixels(frames: np.ndarray) -> np.ndarray:
    pixels = torch.from_numpy(np.ascontiguousarray(frames)).flatten(0, 1).permute(0, 3, 1, 2)
    small = torch.nn.functional.adaptive_avg_pool2d(pixels.float() / 255, _PIXEL_GRID)
    flat = small.reshape(len(frames), frames.shape[1], 3, 64)
    return (flat - flat.mean(dim=(1, 3), keepdim=True)).flatten(1).numpy()


def difference_embedding(frames: np.ndarray) -> np.ndarray:
    """Absolute differences of consecutive frames, gray, shrunk to 16 x 16: uint8 (N, T, H, W, 3) ->
    float32 (N, (T-1)*256). What moves where, without any learning."""
    parts = []
    for start in range(0, max(len(frames), 1), _BATCH):
        gray = torch.from_numpy(
            frames[start : start + _BATCH].mean(axis=-1, dtype=np.float32) / 255
        )
        change = torch.nn.functional.adaptive_avg_pool2d((gray[:, 1:] - gray[:, :-1]).abs(), 16)
        parts.append(change.flatten(1).numpy())
    return np.concatenate(parts)


def encoder_folder(path: Path) -> Path:
    """The encoder inside a training run's folder, or the folder itself."""
    return path / "encoder" if (path / "encoder" / "config.json").exists() else path
