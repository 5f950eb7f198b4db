"""Labels by LAPA's latent action quantization: codes of a trained LAQ on the two ends of a pair."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from invact_vla.core.files import hash_file, hash_json, hash_tree
from invact_vla.training.device import CPU, exact, resolve_dtype
from latent_actions.labelers.labeler import (
    FrameSpec,
    Labeler,
    LabelerConfig,
    TrainingFrames,
    ends,
    full_batches,
    subfolder_or_self,
)
from latent_actions.labelers.laq.checkpoint import from_pretrained, stored_config
from latent_actions.labelers.laq.model import LatentActionQuantizer, resize, to_video
from latent_actions.video.records import PairRecord

MODEL_PART = "model"  # sub-folder of a training run that holds the weights
# pairs per forward pass; fixed, so that labels never depend on the caller's batches
BATCH, CPU_BATCH = 64, 32  # what a small LAQ makes of 32 stays in a core's cache


@LabelerConfig.register_subclass("lapa")
@dataclass(frozen=True, kw_only=True)
class LapaConfig(LabelerConfig):
    """LAPA's LAQ (arxiv.org/abs/2410.11758)."""

    laq: Path = Path("runs/laq")  # run of `invact latent train`, folder of weights, or a .pt file
    # number format of the network: fp32, auto (bf16 on a GPU), bf16, fp16; other formats than fp32 are
    # faster and give some pairs other codes
    dtype: str = "fp32"

    def parents(self) -> dict[str, Path]:
        return {"laq": self.laq}

    def frame_spec(self) -> FrameSpec:
        config = stored_config(laq_path(self.laq))
        return FrameSpec(config.image_size, config.fit, required=config.lapa_compat)

    def build(self, folder: Path, training: TrainingFrames, device: torch.device = CPU) -> Labeler:
        return LapaLabeler(laq_path(self.laq), device, resolve_dtype(self.dtype, device))


def laq_path(path: Path) -> Path:
    """The folder or file of weights that a path to a LAQ means."""
    return Path(path) if Path(path).is_file() else subfolder_or_self(path, MODEL_PART)


class LapaLabeler:
    """A loaded LAQ that labels."""

    name = "lapa"
    n_frames = 2

    dtype = torch.float32

    def __init__(
        self, path: Path, device: torch.device = CPU, dtype: torch.dtype = torch.float32
    ) -> None:
        self.model: LatentActionQuantizer = from_pretrained(path, device=device)
        self.hash = hash_file(path) if path.is_file() else hash_tree(path)
        self.dtype = dtype
        if dtype != torch.float32:
            self.hash = hash_json([self.hash, str(dtype)])
        self.code_length = self.model.config.code_seq_len
        self.codebook_size = self.model.config.codebook_size

    def codes(self, frames: np.ndarray, pairs: Sequence[PairRecord] | None = None) -> np.ndarray:
        """Codes of the first and the last frame, resized to the model's input size if need be."""
        return self.label(frames)[0]

    @exact()
    def label(
        self, frames: np.ndarray, pairs: Sequence[PairRecord] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """(codes, int64 (B, K); the deltas before the codebook, float32 (B, K * Q)) of pairs."""
        config, device = self.model.config, self.model.device
        codes = [np.zeros((0, self.code_length), np.int64)]
        deltas = [np.zeros((0, self.code_length * config.quant_dim), np.float32)]
        size = CPU_BATCH if device.type == "cpu" else BATCH
        for batch, count in full_batches(ends(frames), size, device):
            # resized on the CPU: MPS cannot, and all devices see the same pixels
            video = resize(to_video(batch), config.image_size).to(device)
            with autocast(device, self.dtype):
                found = self.model.quantize(video)
            codes.append(found.codes[:count].cpu().numpy())
            deltas.append(found.delta[:count].flatten(1).float().cpu().numpy())
        return np.concatenate(codes), np.concatenate(deltas)


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Matrix products in `dtype`; nothing for fp32."""
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype)
