"""Baselines that transformers has classes for: CLIP, DINOv3, V-JEPA 2, TimeSformer.

`weights` is a local folder or a name on the hub, "owner/name" or "owner/name@revision"; the hub's own
cache and token apply.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from invact_vla.core.errors import UserError
from invact_vla.training.device import CPU
from latent_actions.published_model import published_model
from latent_actions.retrieval.baselines.baseline import (
    CLIP_COLORS,
    IMAGENET,
    KINETICS,
    BaselineConfig,
    Forward,
    Pool,
    Preprocess,
    per_frame,
    pool_frames,
)


@BaselineConfig.register_subclass("clip")
@dataclass(frozen=True, kw_only=True)
class ClipConfig(BaselineConfig):
    """CLIP's image tower (arxiv.org/abs/2103.00020): frame embeddings of unit length, pooled."""

    weights: str = "openai/clip-vit-base-patch16"  # local folder or hub name (MIT)
    pool: Pool = "mean"  # over frames: mean | concat

    def load(self, device: torch.device = CPU) -> tuple[Preprocess, Forward]:
        from transformers import CLIPVisionModelWithProjection

        model = published_model(CLIPVisionModelWithProjection, self.weights, device)
        size = model.config.image_size

        def forward(clips: Tensor) -> Tensor:
            vectors = per_frame(lambda images: model(pixel_values=images).image_embeds, clips)
            return pool_frames(normalize(vectors, dim=-1), self.pool)

        return Preprocess(frames=self.frames, size=size, colors=CLIP_COLORS), forward


@BaselineConfig.register_subclass("dinov3")
@dataclass(frozen=True, kw_only=True)
class Dinov3Config(BaselineConfig):
    """DINOv3 (arxiv.org/abs/2508.10104): class token, or mean of the patch tokens, of each frame."""

    weights: str = "facebook/dinov3-vitb16-pretrain-lvd1689m"  # folder or hub name (gated license)
    tokens: Literal["class", "patches"] = "class"  # what a frame's vector is made of
    pool: Pool = "mean"  # over frames: mean | concat
    size: int = 224  # frame size (px), a multiple of the patch

    def load(self, device: torch.device = CPU) -> tuple[Preprocess, Forward]:
        from transformers import DINOv3ViTModel

        model = published_model(DINOv3ViTModel, self.weights, device)
        first_patch = 1 + model.config.num_register_tokens

        def frame_vectors(images: Tensor) -> Tensor:
            tokens = model(pixel_values=images).last_hidden_state
            return tokens[:, 0] if self.tokens == "class" else tokens[:, first_patch:].mean(dim=1)

        def forward(clips: Tensor) -> Tensor:
            return pool_frames(per_frame(frame_vectors, clips), self.pool)

        return Preprocess(frames=self.frames, size=self.size, colors=IMAGENET), forward


@BaselineConfig.register_subclass("vjepa2")
@dataclass(frozen=True, kw_only=True)
class Vjepa2BaselineConfig(BaselineConfig):
    """V-JEPA 2 (arxiv.org/abs/2506.09985): mean of the encoder's tokens; it has no class token."""

    weights: str = "facebook/vjepa2-vitl-fpc64-256"  # local folder or hub name (MIT)
    frames: int = 16  # frames per clip, a multiple of the tubelet (2)

    def load(self, device: torch.device = CPU) -> tuple[Preprocess, Forward]:
        from transformers import VJEPA2Model

        model = published_model(VJEPA2Model, self.weights, device)
        config = model.config
        if self.frames % config.tubelet_size:
            raise UserError(
                f"vjepa2 reads tubelets of {config.tubelet_size} frames, got frames {self.frames}"
            )
        resize = round(config.crop_size * 292 / 256)  # what its own video processor does
        prepare = Preprocess(
            frames=self.frames, size=config.crop_size, resize=resize, colors=IMAGENET,
            mode="bilinear",
        )  # fmt: skip
        return prepare, lambda clips: model.get_vision_features(clips).mean(dim=1)


@BaselineConfig.register_subclass("timesformer")
@dataclass(frozen=True, kw_only=True)
class TimesformerBaselineConfig(BaselineConfig):
    """TimeSformer (arxiv.org/abs/2102.05095): class token of the last layer."""

    weights: str = "facebook/timesformer-base-finetuned-k400"  # folder or hub name (CC-BY-NC-4.0)

    def load(self, device: torch.device = CPU) -> tuple[Preprocess, Forward]:
        from transformers import TimesformerModel

        model = published_model(TimesformerModel, self.weights, device)
        size = model.config.image_size
        prepare = Preprocess(frames=self.frames, size=size, colors=KINETICS, mode="bilinear")
        return prepare, lambda clips: model(pixel_values=clips).last_hidden_state[:, 0]
