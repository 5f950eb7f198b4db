"""`invact vla pretrain`: teach an OpenVLA to name the latent action of what it sees.

Input: the first frame of a pair and the clip's text; target: the codes of the pair, as tokens in unused
vocabulary rows, and EOS. After LAPA stage 2 (arxiv.org/abs/2410.11758) and UniVLA
(arxiv.org/abs/2505.06111).

    <out>/model/           checkpoint folder
    <out>/frames.npy       the first frames as the model's processor prepares them, decoded once
    <out>/summary.json     held-out cross-entropy and accuracy beside the most frequent code's
"""

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from invact_vla.data.decode import decode_frames
from invact_vla.data.label_store import LabelStore, read_labels
from invact_vla.errors import UserError
from invact_vla.openvla.folder import MODEL, checkpoint_folder
from invact_vla.openvla.latent_tokens import LatentTokens
from invact_vla.openvla.losses import make_loss
from invact_vla.openvla.pretrained import Pretrained, load_pretrained, save_pretrained
from invact_vla.openvla.processor import ImageProcessor
from invact_vla.openvla.prompt import collate
from invact_vla.training.files import atomic_file
from invact_vla.training.loop import LoopConfig, fit
from invact_vla.training.run_folder import open_run, run_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """One arm's latent pretraining."""

    out: Path = Path("runs/pretrain")  # folder of the run
    seed: int = 0  # recorded; the loop has a seed of its own
    overwrite: bool = False  # replace a run with another config
    model: Path = Path("runs/vla_init/model")  # checkpoint to start from, or the run that holds it
    labels: Path = Path("runs/labels/labels_train.parquet")  # label store to learn
    held_out: Path | None = None  # label store to measure on
    videos: Path = Path("data/ssv2/20bn-something-something-v2")  # folder of <episode>.webm
    augment: bool = True  # random crops, brightness and contrast
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(steps=200, batch_size=32)
    )  # training


def main(config: PretrainConfig) -> Path:
    """Train, measure, save; returns the run folder."""
    config = replace(config, model=checkpoint_folder(config.model))
    parents = {"model": run_of(config.model), "labels": run_of(config.labels)}
    run = open_run(config.out, config, parents, config.overwrite, config.seed)
    if run.finished:
        return run.folder
    torch.set_num_threads(config.loop.threads)
    pretrained = load_pretrained(config.model)
    store = read_labels(config.labels)
    data = LatentExamples(pretrained, store, config.videos, run.folder / "frames.npy")
    rng_seed = config.loop.seed

    def batch_at(step: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([rng_seed, step])
        rows = rng.integers(0, len(data), config.loop.batch_size)
        return data.batch(rows, rng if config.augment else None)

    loss_fn = make_loss(pretrained.config)
    fit(pretrained.model, loss_fn, batch_at, config.loop, run.folder, description="pretrain")
    summary = {"pairs": len(data), "labeller": store.identity.labeller}
    if config.held_out is not None:
        held_out = read_labels(config.held_out, labeller_hash=store.identity.labeller_hash)
        frames = run.folder / "frames_held_out.npy"
        summary |= measure(LatentExamples(pretrained, held_out, config.videos, frames), store)
        logger.info("%s: %s", run.folder, summary)
    save_pretrained(pretrained, run.folder / MODEL)
    run.finish(summary)
    return run.folder


class LatentExamples:
    """Training sequences of a label store, frames decoded once into a memory-mapped file."""

    def __init__(
        self, pretrained: Pretrained, store: LabelStore, videos: Path, frames: Path
    ) -> None:
        tokens = LatentTokens.of(pretrained.config)
        if store.identity.codebook_size > len(tokens.ids):
            raise UserError(
                f"labels use {store.identity.codebook_size} codes, this model has room for "
                f"{len(tokens.ids)}: make one with `invact vla init --codebook_size`"
            )
        self.pretrained = pretrained
        self.codes = store.labels.codes
        targets = tokens.encode(self.codes)
        self.sequences = [
            pretrained.sequences.example(text, row)
            for text, row in zip(store.text, targets, strict=True)
        ]
        self.frames = first_frames(store, videos, pretrained.processor, frames)

    def __len__(self) -> int:
        return len(self.sequences)

    def batch(self, rows: np.ndarray, rng: np.random.Generator | None) -> dict[str, Tensor]:
        """The model's keyword arguments for some rows; `rng` augments the frames."""
        batch = collate([self.sequences[i] for i in rows], self.pretrained.config.pad_token_id)
        pixels = self.pretrained.processor.pixel_values(np.asarray(self.frames[rows]), rng)
        return {**batch, "pixel_values": pixels}


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
            for row, episode in enumerate(store.episode):
                rows.setdefault(episode, []).append(row)
            for episode, members in tqdm(rows.items(), "decode", unit="video", mininterval=5):
                frames = decode_frames(find_video(videos, episode), store.frame[members])
                out[members] = processor.prepare(frames)
            out.flush()
    return np.load(path, mmap_mode="r")


def find_video(folder: Path, episode: str) -> Path:
    """The video file of an episode, `<source>/<id>` or `<id>`, whatever its container."""
    name = episode.rpartition("/")[2]
    for suffix in (".webm", ".mp4", ".avi", ".mkv"):
        path = folder / f"{name}{suffix}"
        if path.exists():
            return path
    raise UserError(f"no video of episode {episode} in {folder}: expected {name}.webm or .mp4")


@torch.no_grad()
def measure(data: LatentExamples, training: LabelStore, batch_size: int = 64) -> dict[str, float]:
    """Cross-entropy (nats a token, EOS included) and code accuracy on held-out pairs, and the
    accuracy of always saying the most frequent training code of each position."""
    loss_fn = make_loss(data.pretrained.config)
    data.pretrained.model.eval()
    sums, count = np.zeros(2), 0
    for start in range(0, len(data), batch_size):
        rows = np.arange(start, min(start + batch_size, len(data)))
        loss, metrics = loss_fn(data.pretrained.model, data.batch(rows, None), 0)
        sums += np.array([float(loss), float(metrics["latent_accuracy"])]) * len(rows)
        count += len(rows)
    size = training.identity.codebook_size
    modes = [np.bincount(column, minlength=size).argmax() for column in training.labels.codes.T]
    return {
        "held_out_pairs": count,
        "held_out_cross_entropy": sums[0] / count,
        "held_out_accuracy": sums[1] / count,
        "most_frequent_code_accuracy": float((data.codes == np.array(modes)).mean()),
    }
