"""`invact encoder baseline`: load one baseline and see what it makes of a few drawn clips.

Weights that do not fit, frames that are ignored and vectors that do not tell clips apart show in
seconds, before hours of embedding.
"""

import time
from dataclasses import dataclass

import numpy as np

from invact_vla.core.errors import UserError
from latent_actions.retrieval.baselines import BaselineConfig, Embed, load_baseline, name_of

CLIPS = 4  # drawn: a square that moves over a texture
_SIDE = 0.25  # of the moving square, over the frame


@dataclass(frozen=True, kw_only=True)
class BaselineCheckConfig:
    """Which baseline to check, and on what."""

    baseline: BaselineConfig  # the encoder and its weights
    frames: int = 16  # frames per drawn clip
    size: int = 128  # frame size (px)
    seed: int = 0  # of the drawing
    device: str = "auto"  # where it runs: auto | cpu | cuda | cuda:N | mps

    def __post_init__(self) -> None:
        if self.frames < 2 or self.size < 8:
            raise ValueError("frames must be >= 2, size >= 8")


def main(config: BaselineCheckConfig) -> dict[str, float]:
    """Print and return what `check` found."""
    embed = load_baseline(config.baseline, config.device)
    found = check(embed, draw_clips(config))
    print(f"{name_of(config.baseline)}: " + ", ".join(f"{k} {v:.4g}" for k, v in found.items()))
    return found


def check(embed: Embed, clips: np.ndarray) -> dict[str, float]:
    """Width and time of the vectors, and three mean cosines.

    other_clip: between different clips; reversed: a clip and itself played backwards, 1 = the
    encoder is blind to order; darker: a clip and itself at 80 % brightness. UserError if vectors are
    not finite or clips cannot be distinguished."""
    start = time.perf_counter()
    vectors = embed(clips)
    elapsed_s = time.perf_counter() - start
    cosines = vectors @ vectors.T
    others = cosines[~np.eye(len(clips), dtype=bool)]
    if not np.isfinite(vectors).all():
        raise UserError("the vectors are not finite: the weights are damaged or of another size")
    if others.min() > 1 - 1e-6:
        raise UserError("all clips have the same vector: the weights are not of a trained network")
    return {
        "dimensions": vectors.shape[1],
        "ms_per_clip": 1000 * elapsed_s / len(clips),
        "other_clip": float(others.mean()),
        "reversed": float((vectors * embed(clips[:, ::-1])).sum(axis=1).mean()),
        "darker": float((vectors * embed((clips * 0.8).astype(np.uint8))).sum(axis=1).mean()),
    }


def draw_clips(config: BaselineCheckConfig) -> np.ndarray:
    """Squares of random colors that cross random textures: uint8 (N, T, S, S, 3)."""
    rng = np.random.default_rng(config.seed)
    cell = max(1, config.size // 8)
    coarse = rng.integers(0, 256, (CLIPS, 8, 8, 3), dtype=np.uint8)
    texture = np.repeat(np.repeat(coarse, cell, axis=1), cell, axis=2)
    side = max(2, int(_SIDE * 8 * cell))
    room = 8 * cell - side
    clips = np.repeat(texture[:, None], config.frames, axis=1)
    for clip in clips:
        color = rng.integers(0, 256, 3, dtype=np.uint8)
        first, last = rng.uniform(0, room, (2, 2))
        for i, share in enumerate(np.linspace(0, 1, config.frames)):
            top, left = (first + share * (last - first)).astype(int)
            clip[i, top : top + side, left : left + side] = color
    return clips
