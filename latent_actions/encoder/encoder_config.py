"""Shape of an InvAct encoder: what its config.json holds."""

from dataclasses import dataclass, field
from typing import get_args

from latent_actions.encoder.attention import Kernel
from latent_actions.encoder.commit import CommitConfig
from latent_actions.encoder.embedder import Fusion, Stem, Stream

MAX_DEPTH = 1024
HEAVIEST = 100  # of duration_weight: nothing else is left then


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Shape of the encoder."""

    frames: int = 8  # T, frames per clip
    size: int = 48  # H = W in pixels; other sizes are resized
    tubelet: int = 2  # frames per token
    patch: int = 8  # patch size (px)
    # among rgb, diff (frame difference), steady (the same without the camera's motion), flow
    # (Lucas-Kanade), features (frozen image model)
    streams: tuple[Stream, ...] = ("rgb", "diff")
    # at inference each of these in the place of `streams`' one, embeddings averaged; none: that one
    averaged: tuple[Stream, ...] = ()
    fusion: Fusion = "channels"  # of streams: channels of one stem | sum | gated
    features: str = ""  # folder of the frozen image model (transformers), for the stream `features`
    stem: Stem = "conv"  # tubelet embedder: conv (patch a power of 2) | linear (as published)
    width: int = 128  # of tokens, d
    depth: int = 4  # blocks, commit blocks included
    heads: int = 4  # attention heads
    mlp_ratio: float = 4.0  # hidden width of the MLP over d
    embedding: int = 128  # numbers of the embedding, D
    action_dim: int = 0  # k, numbers the action token is projected to before that; 0: d
    displacement: int = 0  # numbers of the displacement head, beside the embedding; 0: no head
    # of a clip's duration beside its embedding (duration.py), in retrieval across scenes, views and
    # places and in search; 1: as much as the embedding
    duration_weight: float = 0.0
    kernel: Kernel = "matmul"  # attention code: matmul (bf16 CPU) | sdpa (fp32, GPU)
    commit: CommitConfig = field(default_factory=CommitConfig)  # routing

    def __post_init__(self) -> None:
        names = ("frames", "size", "tubelet", "patch", "width", "depth", "heads")
        sizes = [getattr(self, name) for name in names]
        if min(sizes) < 1 or self.depth > MAX_DEPTH or self.commit.registers > MAX_DEPTH:
            raise ValueError(f"sizes must be at least 1, depth and registers at most {MAX_DEPTH}")
        if self.frames % self.tubelet or self.size % self.patch or self.width % self.heads:
            raise ValueError(
                f"frames {self.frames} / tubelet {self.tubelet}, size {self.size} / patch "
                f"{self.patch} and width {self.width} / heads {self.heads} must divide evenly"
            )
        if self.stem == "conv" and (self.patch < 2 or self.patch & (self.patch - 1)):
            raise ValueError(f"stem conv needs a patch that is a power of 2, got {self.patch}")
        known = get_args(Stream)
        if self.frames < 2 or not self.streams or set(self.streams) - set(known):
            raise ValueError(f"frames must be >= 2 and streams among {known}, got {self.streams}")
        if "features" in self.streams and (self.fusion == "channels" or not self.features):
            raise ValueError(
                "stream features needs the folder of a frozen model in `features`, and fusion sum "
                "or gated: it has no pixels to share a stem with"
            )
        shown = (*self.averaged, *self.streams)
        if self.averaged and (len(self.streams) > 1 or "features" in shown):
            raise ValueError(
                "averaged takes the place of one stream of pixels: give streams one of them, got "
                f"averaged {self.averaged} and streams {self.streams}"
            )
        if self.averaged and (self.fusion != "channels" or not set(self.averaged) <= set(known)):
            raise ValueError(
                f"averaged needs fusion channels and streams among {known}, got {self.fusion} and "
                f"{self.averaged}"
            )
        if self.action_dim < 0 or not 0 <= self.displacement <= MAX_DEPTH:
            raise ValueError(
                f"action_dim must be >= 0 and displacement in 0..{MAX_DEPTH}, got "
                f"{self.action_dim} and {self.displacement}"
            )
        if not 0 <= self.duration_weight <= HEAVIEST:
            raise ValueError(
                f"duration_weight must be in 0..{HEAVIEST}, got {self.duration_weight}"
            )
        if self.commit.estimator != "none" and self.commit.start >= self.depth:
            raise ValueError(
                f"commit.start {self.commit.start} leaves no commit block of {self.depth}"
            )

    @property
    def has_register_encoder(self) -> bool:
        """Whether registers are read by a network of their own."""
        c = self.commit
        return c.estimator != "none" and c.registers > 0 and c.register_encoder == "separate"

    @property
    def registers_trainable(self) -> bool:
        """Whether there are registers that a loss of theirs can teach; a plain ViT with a separate
        register encoder in the config has none."""
        return self.commit.registers > 0 and (
            self.has_register_encoder or self.commit.register_encoder == "shared"
        )
