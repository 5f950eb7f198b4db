"""`invact latent train`: frame pairs to a LAQ.

    <out>/model/               config.json, model.safetensors
    <out>/metrics.jsonl        loss, r2_vs_copy, perplexity of the training
    <out>/summary.json         held-out code usage and reconstruction r2_vs_copy
    <out>/reconstructions.png  held-out pairs: first, second, predicted second frame

r2_vs_copy is 1 - MSE(prediction, second frame) / MSE(first frame, second frame). A model whose codes
should not be used ends with `problems` in its summary and a warning for each.
"""

import logging
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from invact_vla.core.run_folder import Run, open_run
from invact_vla.training.device import Device, stage_device
from invact_vla.training.distributed import init_distributed, main_process_first, run_on_main
from invact_vla.training.loop import LoopConfig, fit
from latent_actions.labelers.guard.collapse import CollapseConfig, refuse_static
from latent_actions.labelers.guard.guarded import after_step, guarded_loss
from latent_actions.labelers.laq.checkpoint import save_pretrained
from latent_actions.labelers.laq.config import LaqConfig
from latent_actions.labelers.laq.evaluate import evaluate, save_grid
from latent_actions.labelers.laq.task import LaqTask, PairAugmentConfig, batches
from latent_actions.labelers.pairs import PairConfig
from latent_actions.video.records import Split
from latent_actions.video.sources import Ssv2Source
from latent_actions.video.store import FrameStore

logger = logging.getLogger(__name__)


def published_pairs() -> PairConfig:
    """Pairs of Something-Something V2 at the published size."""
    return PairConfig(source=Ssv2Source(), frames=2, size=256)


def published_loop() -> LoopConfig:
    """The published optimization: Adam at a constant 1e-4, batches of 64, 100,000 steps."""
    return LoopConfig(
        steps=100_000, batch_size=64, learning_rate=1e-4, schedule="constant", weight_decay=0.0,
        beta2=0.99, gradient_clip=0.5,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LaqTrainConfig:
    """Training of LAPA's latent action quantization."""

    out: Path = Path("runs/laq")  # folder of the run
    seed: int = 0  # weights, batches and noise
    overwrite: bool = False  # replace a run with another config
    pairs: PairConfig = field(default_factory=published_pairs)  # 2 frames of model.image_size px
    val_pairs: int = 2000  # held-out pairs to measure on, at most
    augment: PairAugmentConfig = field(default_factory=PairAugmentConfig)  # none by default
    model: LaqConfig = field(default_factory=LaqConfig)  # architecture
    guard: CollapseConfig = field(default_factory=CollapseConfig)  # re-seeding and collapse
    loop: LoopConfig = field(default_factory=published_loop)  # optimization
    workers: int = 1  # decoding processes
    device: str = "auto"  # where it is trained and measured: auto | cpu | cuda | cuda:N | mps

    def __post_init__(self) -> None:
        wanted = (2, self.model.image_size, self.model.fit)
        pairs = self.pairs
        if (pairs.frames, pairs.size or wanted[1], pairs.fit or wanted[2]) != wanted:
            raise ValueError(
                f"LAQ reads 2 frames of {wanted[1]} px (model.image_size), fit {wanted[2]} (model.fit), "
                f"got frames {pairs.frames}, size {pairs.size} and fit {pairs.fit}"
            )
        if self.model.lapa_compat:
            raise ValueError("lapa_compat is for published weights; training mends their defects")
        if min(self.val_pairs, self.workers) < 1:
            raise ValueError("val_pairs and workers must be at least 1")


def main(config: LaqTrainConfig) -> Path:
    """Train, measure on held-out pairs, write the products; returns the run folder."""
    init_distributed(config.device)
    inputs = config.pairs.parents()
    run = run_on_main(lambda: open_run(config.out, config, inputs, config.overwrite, config.seed))
    if run.finished:
        logger.info("%s: already finished", run.folder)
        return run.folder
    frames = main_process_first(lambda: _frames(config, "train", run.folder))
    refuse_static(frames, config.guard.max_static)
    run_on_main(lambda: config.pairs.records("val"))  # what to measure on, before the training
    task = train(config, frames, run.folder, stage_device(run, config.device))
    run_on_main(lambda: _finish(config, task, len(frames), run))
    return run.folder


def _finish(config: LaqTrainConfig, task: LaqTask, pairs: int, run: Run) -> None:
    """Write what was trained, then measure it."""
    save_pretrained(task.laq, run.folder / "model")
    held_out = _frames(config, "val", run.folder)
    report = evaluate(task.laq, held_out, config.seed)
    save_grid(task.laq, held_out, run.folder / "reconstructions.png")
    for line in report.lines():
        print(f"laq val: {line}")
    for problem in report.problems():
        logger.warning("laq: %s", problem)
    shutil.rmtree(run.folder / "frames", ignore_errors=True)
    run.finish({"pairs": pairs, **report.to_json()})


def train(
    config: LaqTrainConfig, frames: np.ndarray, folder: Path, device: Device = "auto"
) -> LaqTask:
    """The training itself, on uint8 (N, 2, H, W, 3): a function of config, pairs and seed."""
    torch.manual_seed(config.seed)
    task = LaqTask(config.model, config.guard, config.loop.steps, config.seed)
    parameters = sum(p.numel() for p in task.laq.parameters())
    logger.info("LAQ of %.2f M parameters on %d pairs", parameters / 1e6, len(frames))
    loop = replace(config.loop, seed=config.seed)
    batch_at = batches(frames, loop.batch_size, config.seed, config.augment)
    fit(task, guarded_loss, batch_at, loop, folder, after_step, "train LAQ", device)
    return task


def _frames(config: LaqTrainConfig, split: Split, folder: Path) -> np.ndarray:
    """Decoded pairs of a split, memory-mapped: uint8 (N, 2, H, W, 3); of "val" at most val_pairs, drawn
    by seed."""
    records, model, source = config.pairs.records(split), config.model, config.pairs.source
    if split == "val" and len(records) > config.val_pairs:
        rng = np.random.default_rng([config.seed, 1])
        chosen = rng.choice(len(records), config.val_pairs, replace=False)
        records = [records[i] for i in np.sort(chosen)]
    place, size = folder / "frames" / split, model.image_size
    limit = source.max_skipped
    return FrameStore.build(records, place, 2, size, config.workers, model.fit, limit).frames
