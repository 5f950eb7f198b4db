"""What is evaluated: anything that makes a vector of a clip, and what else it may offer.

The trained encoder, the same architecture with random weights, and raw pixels: what the numbers
are worth.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from invact_vla.training.device import CPU, Device, exact, resolve_device
from latent_actions.encoder.encoder import EncoderConfig, InvActEncoder
from latent_actions.encoder.inputs.language import LanguageHead, text_features
from latent_actions.encoder.routing import Routing

Embed = Callable[[np.ndarray], np.ndarray]
_PIXEL_GRID = 8  # side of the pictures that the pixel baseline compares
_BATCH = 64


@dataclass(frozen=True)
class Tokens:
    """What an encoder holds besides its embedding, of N clips.

    action: float32 (N, k), as the head reads it; token: float32 (N, d), the same before it is cut
    down to k numbers; registers: float32 (N, R * d); committed: int64 (N, T', H', W'), 0 where a
    patch is committed to the action token.
    """

    action: np.ndarray
    token: np.ndarray
    registers: np.ndarray
    committed: np.ndarray


@dataclass(frozen=True, kw_only=True)
class EvaluatedEncoder:
    """One encoder under evaluation. Benchmarks that need what it lacks leave it out, and say so."""

    name: str
    embed: Embed  # uint8 (N, T, H, W, 3) -> float (N, D)
    tokens: Callable[[np.ndarray], Tokens] | None = None  # of an encoder with commit blocks
    texts: Callable[[Sequence[str]], np.ndarray] | None = None  # K texts -> float (K, D)

    def of_frames(self, clips: np.ndarray) -> np.ndarray:
        """Mean vector of the single frames, each shown as a still clip: blind to their order."""
        count = clips.shape[1]
        parts = [self.embed(np.repeat(clips[:, [t]], count, axis=1)) for t in range(count)]
        return np.mean(parts, axis=0)


def embed_all(subject: EvaluatedEncoder, frames: np.ndarray, batch: int = 256) -> np.ndarray:
    """Vectors of a memory-mapped array of clips, a batch at a time: float (N, D)."""
    rows = np.arange(len(frames))
    parts = [subject.embed(frames[rows[i : i + batch]]) for i in range(0, len(frames), batch)]
    return np.concatenate(parts)


def trained(path: Path, name: str = "encoder", device: Device = CPU) -> EvaluatedEncoder:
    """The encoder of a training run's folder, with its text side, or of a bare encoder folder."""
    encoder = InvActEncoder.from_pretrained(encoder_folder(path), device)
    texts, language = None, path / "language"
    if language.is_dir():
        texts = text_side(LanguageHead.from_pretrained(language, device))
    return subject_of(encoder, name, texts)


def subject_of(
    encoder: InvActEncoder,
    name: str,
    texts: Callable[[Sequence[str]], np.ndarray] | None = None,
) -> EvaluatedEncoder:
    """An encoder object as a subject."""
    has_tokens = len(encoder.commit_blocks) > 0 and encoder.config.commit.registers > 0
    tokens = (lambda clips: token_states(encoder, clips)) if has_tokens else None
    return EvaluatedEncoder(name=name, embed=encoder.embed, tokens=tokens, texts=texts)


def text_side(head: LanguageHead) -> Callable[[Sequence[str]], np.ndarray]:
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
    action, token, registers, committed = [], [], [], []
    encoder.eval()
    for start in range(0, len(clips), _BATCH):
        batch = torch.from_numpy(np.ascontiguousarray(clips[start : start + _BATCH]))
        encoded = encoder(batch.to(encoder.device), Routing(hard=True, noise=False))
        action.append(encoded.action.float().cpu())
        token.append(encoded.token.float().cpu())
        registers.append(encoded.registers.float().flatten(1).cpu())
        committed.append(encoded.rows[-1].used.argmax(dim=-1).cpu())
    tokens = int(np.prod(encoder.grid))  # further streams, if any, follow those of the first
    places = torch.cat(committed)[:, :tokens].reshape(len(clips), *encoder.grid)
    return Tokens(
        action=torch.cat(action).numpy(),
        token=torch.cat(token).numpy(),
        registers=torch.cat(registers).numpy(),
        committed=places.numpy(),
    )


def references(config: EncoderConfig, seed: int, device: Device = CPU) -> list[EvaluatedEncoder]:
    """Random weights of the same architecture, the same on every device, and raw pixels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        untrained = InvActEncoder(config).to(resolve_device(device)).eval()
    return [
        subject_of(untrained, "random weights"), EvaluatedEncoder(name="pixels", embed=pixel_embedding)
    ]  # fmt: skip


def pixel_embedding(frames: np.ndarray) -> np.ndarray:
    """All frames shrunk to 8 x 8, the clip's mean color removed: uint8 (N, T, H, W, 3) -> float32
    (N, T*192).
    """
    parts = [_few_pixels(frames[i : i + _BATCH]) for i in range(0, len(frames), _BATCH)]
    return np.concatenate(parts) if parts else _few_pixels(frames)


def _few_pixels(frames: np.ndarray) -> np.ndarray:
    pixels = torch.from_numpy(np.ascontiguousarray(frames)).flatten(0, 1).permute(0, 3, 1, 2)
    small = torch.nn.functional.adaptive_avg_pool2d(pixels.float() / 255, _PIXEL_GRID)
    flat = small.reshape(len(frames), frames.shape[1], 3, 64)
    return (flat - flat.mean(dim=(1, 3), keepdim=True)).flatten(1).numpy()


def encoder_folder(path: Path) -> Path:
    """The encoder inside a training run's folder, or the folder itself."""
    return path / "encoder" if (path / "encoder" / "config.json").exists() else path
