"""Rows of a label store as training examples: the first frame of a pair, its text, its codes.

<out>/frames.npy    uint8 (N, S, S, 3): the first frames as the model's processor prepares them
"""

from pathlib import Path

import numpy as np
from torch import Tensor
from tqdm import tqdm

from invact_vla.core.errors import UserError
from invact_vla.core.files import atomic_file
from invact_vla.data.label_store import LabelStore, find_videos
from invact_vla.data.video.frames import decode_frames
from invact_vla.openvla.checkpoints.checkpoint import VLACheckpoint
from invact_vla.openvla.heads import ActionHead
from invact_vla.openvla.latent_tokens import LatentTokens
from invact_vla.openvla.model import OpenVLA
from invact_vla.openvla.processor import ImageProcessor
from invact_vla.openvla.prompt import collate
from invact_vla.recipes.train import Examples, mean_metrics
from invact_vla.training.distributed import main_process_first


class LatentExamples(Examples):
    """Training sequences of a label store, frames decoded once into a memory-mapped file.

    modes: the most frequent training code of each position (K,), which the accuracy is compared with.
    """

    def __init__(
        self,
        checkpoint: VLACheckpoint,
        store: LabelStore,
        videos: Path,
        frames: Path,
        modes: np.ndarray,
    ) -> None:
        self.processor, self.store, self.modes = checkpoint.processor, store, modes
        self.pad_token_id = checkpoint.config.pad_token_id
        targets = LatentTokens.of(checkpoint.config).encode(store.labels.codes)
        self.sequences = [
            checkpoint.sequences.example(text, row)
            for text, row in zip(store.text, targets, strict=True)
        ]
        longest, limit = (
            max(len(ids) for ids, _ in self.sequences),
            checkpoint.config.llm_max_length,
        )
        if longest > limit:
            raise UserError(
                f"the longest text and its codes make {longest} tokens, this model reads at most "
                f"{limit} (llm_max_length): shorten the texts of the label store"
            )
        self.frames = main_process_first(
            lambda: first_frames(store, videos, checkpoint.processor, frames)
        )

    def __len__(self) -> int:
        return len(self.sequences)

    def batch(self, rows: np.ndarray, draws: np.ndarray | None = None) -> dict[str, Tensor]:
        batch = collate([self.sequences[i] for i in rows], self.pad_token_id)
        pixels = self.processor.pixel_values_of_views(np.asarray(self.frames[rows])[:, None], draws)
        return {**batch, "pixel_values": pixels}

    def evaluate(self, head: ActionHead, model: OpenVLA) -> dict[str, float]:
        """Cross-entropy (nats per token, EOS included) and code accuracy, and the accuracy of always
        saying the most frequent training code of each position."""
        found = mean_metrics(head, model, len(self), self.batch)
        return {
            "held_out_pairs": len(self),
            "held_out_cross_entropy": found["loss"],
            "held_out_accuracy": found["latent_accuracy"],
            "most_frequent_code_accuracy": float((self.store.labels.codes == self.modes).mean()),
        }


def most_frequent_codes(store: LabelStore) -> np.ndarray:
    """int64 (K,): of each position of the codes."""
    size = store.identity.codebook_size
    return np.array([np.bincount(c, minlength=size).argmax() for c in store.labels.codes.T])


def first_frames(
    store: LabelStore, videos: Path, processor: ImageProcessor, path: Path
) -> np.ndarray:
    """uint8 (N, S, S, 3), memory-mapped: the first frame of each pair, prepared for the model."""
    if not path.exists():
        size = processor.size
        with atomic_file(path) as temporary:
            shape = (len(store), size, size, 3)
            out = np.lib.format.open_memmap(temporary, "w+", np.uint8, shape)
            rows: dict[str, list[int]] = {}
            for row, video in enumerate(store.path):
                rows.setdefault(video, []).append(row)
            found = find_videos(store, videos)
            for video, members in tqdm(rows.items(), "decode", unit="video", mininterval=5):
                frames = decode_frames(found[video], store.frame[members])
                out[members] = processor.prepare(frames)
            out.flush()
    return np.load(path, mmap_mode="r")
