"""`invact vla pretrain`: teach an OpenVLA to name the latent action of what it sees.

Input: the first frame of a pair and the clip's text; target: the codes of the pair, as tokens in unused
vocabulary rows, and EOS. After LAPA stage 2 (arxiv.org/abs/2410.11758) and UniVLA
(arxiv.org/abs/2505.06111). Any OpenVLA folder is a start: one without latent tokens is given them.
`summary.json` names the rows of the latent tokens.

<out>/frames.npy    uint8 (N, S, S, 3): the first frames as the model's processor prepares them
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from invact_vla.core.errors import UserError
from invact_vla.core.files import atomic_file
from invact_vla.core.run_folder import run_of
from invact_vla.data.label_store import LabelStore, find_videos, read_labels
from invact_vla.data.video.frames import decode_frames
from invact_vla.openvla.checkpoints.checkpoint import VLACheckpoint, load_pretrained
from invact_vla.openvla.checkpoints.config_file import read_config, with_latent_tokens
from invact_vla.openvla.heads import ActionHead
from invact_vla.openvla.heads.tokens import TokensHead
from invact_vla.openvla.model import OpenVLA
from invact_vla.openvla.processor import ImageProcessor
from invact_vla.openvla.tokenizer import added_rows, collate
from invact_vla.openvla.vocabulary import LatentTokens, give_latent_tokens
from invact_vla.recipes.train import Examples, Task, TrainConfig, mean_metrics, train
from invact_vla.training.distributed import main_process_first
from invact_vla.untrusted.arrays import map_frames

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(TrainConfig):
    """Latent pretraining of one variant."""

    out: Path = Path("runs/pretrain")  # folder of the run
    labels: Path = Path("runs/labels/labels_train.parquet")  # label store to learn
    held_out: Path | None = None  # label store to measure on
    videos: Path = Path("data/ssv2")  # root of the labeled videos (--pairs.source.root)


def main(config: PretrainConfig) -> Path:
    """Check, train, save, evaluate; returns the run folder."""
    return train(config, "pretrain", {"labels": run_of(config.labels)}, prepare)


def prepare(config: PretrainConfig, folder: Path, device: torch.device) -> Task:
    """Read the label stores, load the start, decode the frames."""
    store, held_out = read_stores(config)
    start, given = load_start(config, store.identity.codebook_size, device)
    modes = most_frequent_codes(store)
    training, unseen = (
        part and LatentExamples(start, part, config.videos, folder / f"{name}.npy", modes)
        for name, part in {"frames": store, "frames_held_out": held_out}.items()
    )
    summary = {
        "pairs": len(store), "labeler": store.identity.labeler,
        "latent_token_ids": list(start.config.invact.latent_token_ids),
        "latent_token_ids_given": list(given),
    }  # fmt: skip
    assert training is not None
    head = TokensHead(start.config, start.sequences)  # whatever head the checkpoint acts with
    return Task(start, head, training, unseen, summary)


def read_stores(config: PretrainConfig) -> tuple[LabelStore, LabelStore | None]:
    """The label stores of training and of evaluation, checked against each other, the model's config
    and the videos before anything large is read. UserError names what does not fit."""
    store = read_labels(config.labels)
    identity, held_out = store.identity, None
    if config.held_out is not None:
        same = {n: getattr(identity, n) for n in ("labeler_hash", "codebook_size", "code_length")}
        held_out = read_labels(config.held_out, **same)
        _check_apart(config, store, held_out)
    for path, part in ((config.labels, store), (config.held_out, held_out)):
        if part is not None and not len(part):
            raise UserError(f"{path} holds no pairs: label a split that has clips")
    model = read_config(config.model)
    if model.invact.proprio_dim:
        raise UserError(
            f"{config.model} reads the robot's state, which human video does not have: start "
            "latent pretraining from a checkpoint without a state token"
        )
    with_latent_tokens(model, identity.codebook_size, added_rows(config.model))
    for part in (store, held_out):
        if part is not None:
            find_videos(part, config.videos)
    return store, held_out


def _check_apart(config: PretrainConfig, store: LabelStore, held_out: LabelStore) -> None:
    """UserError if a held-out pair is a training pair."""
    pairs, of_held_out = (
        set(zip(part.video_key, part.frame.tolist(), part.frame_end.tolist(), strict=True))
        for part in (store, held_out)
    )
    shared = len(pairs & of_held_out)
    if shared:
        raise UserError(
            f"{shared} of {len(held_out)} pairs of held_out {config.held_out} are in labels "
            f"{config.labels} too: measure on another split, such as labels_val.parquet"
        )


def load_start(
    config: PretrainConfig, codebook_size: int, device: torch.device
) -> tuple[VLACheckpoint, tuple[int, ...]]:
    """The checkpoint with latent tokens for the whole codebook, and the rows just given to it."""
    start = load_pretrained(config.model, dtype=config.dtype, device=device)
    given = give_latent_tokens(start.model, codebook_size, config.seed, added_rows(config.model))
    if given:
        logger.info(
            "%s had %d latent tokens, the labels have %d codes: gave it vocabulary rows %d..%d (%d)",
            config.model, len(start.config.invact.latent_token_ids) - len(given), codebook_size,
            given[0], given[-1], len(given),
        )  # fmt: skip
    return start, given


class LatentExamples(Examples):
    """Training sequences of a label store, frames decoded once into a memory-mapped file.

    modes: the most frequent training code of each position (K,), which the accuracy is compared with.
    """

    def __init__(
        self, checkpoint: VLACheckpoint, store: LabelStore, videos: Path, frames: Path,
        modes: np.ndarray,
    ) -> None:  # fmt: skip
        self.processor, self.store, self.modes = checkpoint.processor, store, modes
        self.pad_token_id = checkpoint.config.pad_token_id
        targets = LatentTokens.of(checkpoint.config).encode(store.labels.codes)
        self.sequences = [
            checkpoint.sequences.example(text, row)
            for text, row in zip(store.text, targets, strict=True)
        ]
        longest = max(len(ids) for ids, _ in self.sequences)
        limit = checkpoint.config.llm_max_length
        if longest > limit:
            raise UserError(
                f"the longest text and its codes make {longest} tokens, this model reads at most "
                f"{limit} (llm_max_length): shorten the texts of the label store"
            )
        processor = checkpoint.processor
        self.frames = main_process_first(lambda: first_frames(store, videos, processor, frames))

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
    """uint8 (N, S, S, 3), memory-mapped: the first frame of each pair, prepared for the model; decoded
    where a whole file of them is not there yet."""
    shape = (len(store), processor.size, processor.size, 3)
    if path.exists():
        try:
            return map_frames(path, shape)
        except UserError as error:
            logger.warning("decoded again: %s", error)
    rows: dict[str, list[int]] = {}
    for row, video in enumerate(store.path):
        rows.setdefault(video, []).append(row)
    found = find_videos(store, videos)
    with atomic_file(path) as temporary:
        out = np.lib.format.open_memmap(temporary, "w+", np.uint8, shape)
        for video, members in tqdm(rows.items(), "decode", unit="video", mininterval=5):
            out[members] = processor.prepare(decode_frames(found[video], store.frame[members]))
        out.flush()
    return map_frames(path, shape)
