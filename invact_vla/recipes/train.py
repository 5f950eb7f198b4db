"""How an OpenVLA is trained, whatever on: a checkpoint and a set of examples in, a checkpoint out.

`invact vla pretrain` (pretrain.py) and `invact vla posttrain` (posttrain.py) differ in their
examples alone: each prepares a `Task`, everything else is here.

    <out>/model/           checkpoint folder
    <out>/summary.json     what was trained on, and the metrics of held-out examples

Axis letters: B batch, V pictures of an example, S side of the model's images (px).
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from invact_vla.core.run_folder import Run, open_run, run_of
from invact_vla.openvla.checkpoints.checkpoint import VLACheckpoint, save_pretrained
from invact_vla.openvla.checkpoints.folder import MODEL, checkpoint_folder
from invact_vla.openvla.heads import ActionHead
from invact_vla.openvla.images import AUGMENTATION_DRAWS
from invact_vla.openvla.model import OpenVLA
from invact_vla.training.checkpoint import gather_full_model
from invact_vla.training.device import place, stage_device
from invact_vla.training.distributed import init_distributed, run_on_main
from invact_vla.training.loop import LoopConfig, fit
from invact_vla.training.sampling import local_positions, rows_at

logger = logging.getLogger(__name__)
EVALUATED = 64  # held-out examples per batch


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What every training of an OpenVLA is told."""

    out: Path = Path("runs/train")  # folder of the run
    seed: int = 0  # of what is added to the model; the loop has a seed of its own
    overwrite: bool = False  # replace a run with another config
    model: Path = Path("runs/vla_init/model")  # any OpenVLA checkpoint, or the run that holds it
    augment: bool = True  # random crops and colors
    device: str = "auto"  # where the network runs: auto, cpu, cuda, cuda:N or mps
    dtype: str = "fp32"  # of the weights while training: fp32 or bf16; see also loop.precision
    gradient_checkpointing: bool = False  # recompute layers backward: less memory, 1/3 more time
    # training
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=200, batch_size=32))


class Examples(ABC):
    """A data set as the model reads it. images: pictures V of one example."""

    images: int = 1

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def batch(self, rows: np.ndarray, draws: np.ndarray | None = None) -> dict[str, Tensor]:
        """The model's keyword arguments for the examples `rows` (B,), on the CPU. draws: (B, V, 6)
        random numbers in [0, 1) of the augmentation, or None."""

    @abstractmethod
    def evaluate(self, head: ActionHead, model: OpenVLA) -> dict[str, float]:
        """Metrics of all examples, as `summary.json` has them."""


@dataclass(frozen=True)
class Task:
    """Everything of a training but its loop: what is trained, by the loss of which head, on what."""

    checkpoint: VLACheckpoint
    head: ActionHead
    training: Examples
    held_out: Examples | None
    summary: dict[str, Any]


C = TypeVar("C", bound=TrainConfig)


def save_checkpoint(config: TrainConfig, trained: VLACheckpoint, folder: Path) -> None:
    """Write the checkpoint of a run."""
    save_pretrained(trained, folder / MODEL)


def train(
    config: C,
    description: str,
    inputs: dict[str, Path | None],
    prepare: Callable[[C, Path, torch.device], Task],
    save: Callable[[C, VLACheckpoint, Path], None] = save_checkpoint,
) -> Path:
    """Check, train, save, evaluate; returns the run folder.

    inputs: runs that the examples are made from. prepare(config, folder, device) reads and checks them
    and loads the checkpoint; save(config, checkpoint, folder) writes what was trained.
    """
    init_distributed(config.device)
    config = replace(config, model=checkpoint_folder(config.model))
    sources = {"model": run_of(config.model), **inputs}
    run = run_on_main(lambda: open_run(config.out, config, sources, config.overwrite, config.seed))
    if run.finished:
        return run.folder
    device = stage_device(run, config.device)
    torch.set_num_threads(config.loop.threads)
    task = prepare(config, run.folder, device)
    start, loop = task.checkpoint, config.loop
    if config.gradient_checkpointing:
        start.model.checkpoint_gradients()
    batches = Batches(task.training, loop, config.augment)
    fit(start.model, task.head.loss, batches, loop, run.folder, None, description, device)
    model = gather_full_model(start.model, lambda: OpenVLA(start.config))
    run_on_main(lambda: _finish(config, run, task, replace(start, model=model), save))
    return run.folder


def _finish(config: Any, run: Run, task: Task, trained: VLACheckpoint, save: Callable) -> None:
    """Save first, so that nothing that evaluation meets can cost the training."""
    save(config, trained, run.folder)
    summary = dict(task.summary)
    if task.held_out is not None:
        scores = task.held_out.evaluate(task.head, trained.model.eval())
        logger.info("%s: %s", run.folder, scores)
        summary |= scores
    run.finish(summary)


class Batches:
    """batch_at(step): this process's part of the global batch, a function of (seed, step) alone."""

    def __init__(self, examples: Examples, loop: LoopConfig, augment: bool) -> None:
        self.examples, self.loop, self.augment = examples, loop, augment

    def __call__(self, step: int) -> dict[str, Tensor]:
        size, seed = self.loop.batch_size, self.loop.seed
        positions = local_positions(size)
        rows = rows_at(step, len(self.examples), size, seed)[positions]
        draws = None
        if self.augment:  # drawn for the global batch, so that processes share one stream
            shape = (size, self.examples.images, AUGMENTATION_DRAWS)
            draws = np.random.default_rng([seed, step, 2]).random(shape, np.float32)[positions]
        return self.examples.batch(rows, draws)


@torch.no_grad()
def mean_metrics(
    head: ActionHead, model: OpenVLA, count: int,
    batch_of: Callable[[np.ndarray], dict[str, Tensor]],
) -> dict[str, float]:  # fmt: skip
    """Means of the loss and of the head's metrics over `count` examples; batch_of(rows) gives the
    model's keyword arguments."""
    sums: dict[str, float] = {}
    for start in range(0, count, EVALUATED):
        rows = np.arange(start, min(start + EVALUATED, count))
        loss, metrics = head.loss(model, place(batch_of(rows), model.device))
        for name, value in {"loss": loss, **metrics}.items():
            sums[name] = sums.get(name, 0.0) + float(value) * len(rows)
    return {name: value / count for name, value in sums.items()}
