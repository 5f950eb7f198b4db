"""`invact vla pretrain`: teach an OpenVLA to name the latent action of what it sees.

Input: the first frame of a pair and the clip's text; target: the codes of the pair, as tokens in unused
vocabulary rows, and EOS. After LAPA stage 2 (arxiv.org/abs/2410.11758) and UniVLA
(arxiv.org/abs/2505.06111). Any OpenVLA folder is a start: one without latent tokens is given them.

    <out>/model/           checkpoint folder
    <out>/frames.npy       the first frames as the model's processor prepares them, decoded once
    <out>/summary.json     rows of the latent tokens; held-out cross-entropy and accuracy beside the
                           most frequent code's
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from invact_vla.core.errors import UserError
from invact_vla.core.files import atomic_file
from invact_vla.core.run_folder import Run, open_run, run_of
from invact_vla.data.label_store import LabelStore, read_labels
from invact_vla.data.label_videos import find_videos
from invact_vla.data.video.frames import decode_frames
from invact_vla.openvla.checkpoints.checkpoint import (
    VLACheckpoint,
    load_pretrained,
    save_pretrained,
)
from invact_vla.openvla.checkpoints.config_file import read_config, with_latent_tokens
from invact_vla.openvla.checkpoints.folder import MODEL, checkpoint_folder
from invact_vla.openvla.config import OpenVLAConfig
from invact_vla.openvla.heads.head import device_of
from invact_vla.openvla.images import AUGMENTATION_DRAWS
from invact_vla.openvla.latent_tokens import LatentTokens, give_latent_tokens
from invact_vla.openvla.losses import make_loss
from invact_vla.openvla.model import OpenVLA
from invact_vla.openvla.processor import ImageProcessor
from invact_vla.openvla.prompt import collate
from invact_vla.openvla.tokenizer import added_rows
from invact_vla.training.checkpoint import gather_full_model
from invact_vla.training.device import place, stage_device
from invact_vla.training.distributed import init_distributed, main_process_first, run_on_main
from invact_vla.training.loop import LoopConfig, fit
from invact_vla.training.sampling import local_positions, rows_at

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Latent pretraining of one variant."""

    out: Path = Path("runs/pretrain")  # folder of the run
    seed: int = 0  # of the rows that new latent tokens get; the loop has a seed of its own
    overwrite: bool = False  # replace a run with another config
    model: Path = Path("runs/vla_init/model")  # any OpenVLA checkpoint, or the run that holds it
    labels: Path = Path("runs/labels/labels_train.parquet")  # label store to learn
    held_out: Path | None = None  # label store to measure on
    videos: Path = Path("data/ssv2")  # root of the labeled videos (--pairs.source.root)
    augment: bool = True  # random crops, brightness and contrast
    device: str = "auto"  # where the network runs: auto, cpu, cuda, cuda:N or mps
    dtype: str = "fp32"  # of the weights that are trained: fp32 or bf16; see also loop.precision
    gradient_checkpointing: bool = False  # recompute layers backward: less memory, 1/3 more time
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(steps=200, batch_size=32)
    )  # training


def main(config: PretrainConfig) -> Path:
    """Check, train, save, measure; returns the run folder."""
    init_distributed(config.device)
    config = replace(config, model=checkpoint_folder(config.model))
    parents = {"model": run_of(config.model), "labels": run_of(config.labels)}
    run = run_on_main(lambda: open_run(config.out, config, parents, config.overwrite, config.seed))
    if run.finished:
        return run.folder
    device = stage_device(run, config.device)
    torch.set_num_threads(config.loop.threads)
    store, held_out = read_stores(config)
    start = load_start(config, store.identity.codebook_size, device)
    pretrained = start.pretrained
    data = LatentExamples(pretrained, store, config.videos, run.folder / "frames.npy")
    unseen = None
    if held_out is not None:
        unseen = LatentExamples(
            pretrained, held_out, config.videos, run.folder / "frames_held_out.npy"
        )
    if config.gradient_checkpointing:
        pretrained.model.checkpoint_gradients()
    loss_fn, batch_at = make_loss(pretrained.config), batches(data, config)
    fit(pretrained.model, loss_fn, batch_at, config.loop, run.folder, None, "pretrain", device)
    model = gather_full_model(pretrained.model, lambda: OpenVLA(pretrained.config))
    trained = VLACheckpoint(model, pretrained.tokenizer, pretrained.processor)
    run_on_main(lambda: _finish(run, start, trained, data, unseen))
    return run.folder


def _finish(
    run: Run,
    start: "Start",
    trained: VLACheckpoint,
    data: "LatentExamples",
    unseen: "LatentExamples | None",
) -> None:
    """Save first, so that nothing that measuring meets can cost the training."""
    save_pretrained(trained, run.folder / MODEL)
    summary: dict[str, Any] = {
        "pairs": len(data),
        "labeler": data.store.identity.labeler,
        "latent_token_ids": list(trained.config.invact.latent_token_ids),
        "latent_token_ids_given": list(start.given),
    }
    if unseen is not None:
        summary |= measure(trained, unseen, data.store)
        logger.info("%s: %s", run.folder, summary)
    run.finish(summary)


def read_stores(config: PretrainConfig) -> tuple[LabelStore, LabelStore | None]:
    """The label stores of training and of measuring, checked against each other, the model's config
    and the videos before anything large is read. UserError names what does not fit."""
    store = read_labels(config.labels)
    identity = store.identity
    held_out = None
    if config.held_out is not None:
        held_out = read_labels(
            config.held_out,
            labeler_hash=identity.labeler_hash,
            codebook_size=identity.codebook_size,
            code_length=identity.code_length,
        )
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
        list(zip(part.video_key, part.frame.tolist(), part.frame_end.tolist(), strict=True))
        for part in (store, held_out)
    )
    shared = len(set(pairs) & set(of_held_out))
    if shared:
        raise UserError(
            f"{shared} of {len(held_out)} pairs of held_out {config.held_out} are in labels "
            f"{config.labels} too: measure on another split, such as labels_val.parquet"
        )


@dataclass(frozen=True)
class Start:
    """What training starts from. given: vocabulary rows that were just made latent tokens."""

    pretrained: VLACheckpoint
    given: tuple[int, ...]

    @property
    def model(self) -> OpenVLA:
        """The model of the checkpoint."""
        return self.pretrained.model


def load_start(config: PretrainConfig, codebook_size: int, device: torch.device) -> Start:
    """Load the checkpoint, with latent tokens for the whole codebook."""
    pretrained = load_pretrained(config.model, dtype=config.dtype, device=device)
    given = give_latent_tokens(
        pretrained.model, codebook_size, config.seed, added_rows(config.model)
    )
    if given:
        logger.info(
            "%s had %d latent tokens, the labels have %d codes: gave it vocabulary rows %s",
            config.model,
            len(pretrained.config.invact.latent_token_ids) - len(given),
            codebook_size,
            _as_ranges(given),
        )
    return Start(pretrained, given)


def _as_ranges(ids: tuple[int, ...]) -> str:
    """1, 2, 3, 7 -> "1..3, 7"."""
    spans: list[list[int]] = []
    for i in ids:
        if spans and i == spans[-1][-1] + 1:
            spans[-1][1:] = [i]
        else:
            spans.append([i])
    return ", ".join("..".join(map(str, span)) for span in spans)


def batches(data: "LatentExamples", config: PretrainConfig) -> Callable[[int], dict[str, Tensor]]:
    """`batch_at` for the loop: this process's part of the global batch of a step."""
    seed, size = config.loop.seed, config.loop.batch_size

    def batch_at(step: int) -> dict[str, Tensor]:
        positions = local_positions(size)
        rows = rows_at(step, len(data), size, seed)[positions]
        draws = None
        if config.augment:  # drawn for the global batch, so that processes share one stream
            rng = np.random.default_rng([seed, step, 2])
            draws = rng.random((size, AUGMENTATION_DRAWS), np.float32)[positions]
        return data.batch(rows, draws)

    return batch_at


class LatentExamples:
    """Training sequences of a label store, frames decoded once into a memory-mapped file."""

    def __init__(
        self, pretrained: VLACheckpoint, store: LabelStore, videos: Path, frames: Path
    ) -> None:
        self.pretrained, self.store = pretrained, store
        targets = LatentTokens.of(pretrained.config).encode(store.labels.codes)
        self.sequences = [
            pretrained.sequences.example(text, row)
            for text, row in zip(store.text, targets, strict=True)
        ]
        _check_lengths(self.sequences, pretrained.config)
        self.frames = main_process_first(
            lambda: first_frames(store, videos, pretrained.processor, frames)
        )

    def __len__(self) -> int:
        return len(self.sequences)

    def batch(self, rows: np.ndarray, draws: np.ndarray | None) -> dict[str, Tensor]:
        """The model's keyword arguments for some rows. draws: (B, 6) random numbers in [0, 1) of the
        augmentation, or None."""
        batch = collate([self.sequences[i] for i in rows], self.pretrained.config.pad_token_id)
        pixels = self.pretrained.processor.pixel_values(np.asarray(self.frames[rows]), draws)
        return {**batch, "pixel_values": pixels}


def _check_lengths(sequences: list[tuple[list[int], list[int]]], config: OpenVLAConfig) -> None:
    longest = max(len(ids) for ids, _ in sequences)
    if longest > config.llm_max_length:
        raise UserError(
            f"the longest text and its codes make {longest} tokens, this model reads at most "
            f"{config.llm_max_length} (llm_max_length): shorten the texts of the label store"
        )


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


@torch.no_grad()
def measure(
    trained: VLACheckpoint, data: LatentExamples, training: LabelStore, batch_size: int = 64
) -> dict[str, float]:
    """Cross-entropy (nats per token, EOS included) and code accuracy on held-out pairs, and the
    accuracy of always saying the most frequent training code of each position."""
    loss_fn = make_loss(trained.config)
    model = trained.model.eval()
    device = device_of(model)
    sums, count = np.zeros(2), 0
    for start in range(0, len(data), batch_size):
        rows = np.arange(start, min(start + batch_size, len(data)))
        loss, metrics = loss_fn(model, place(data.batch(rows, None), device), 0)
        sums += np.array([float(loss), float(metrics["latent_accuracy"])]) * len(rows)
        count += len(rows)
    size = training.identity.codebook_size
    modes = [np.bincount(column, minlength=size).argmax() for column in training.labels.codes.T]
    codes = data.store.labels.codes
    return {
        "held_out_pairs": count,
        "held_out_cross_entropy": sums[0] / count,
        "held_out_accuracy": sums[1] / count,
        "most_frequent_code_accuracy": float((codes == np.array(modes)).mean()),
    }
