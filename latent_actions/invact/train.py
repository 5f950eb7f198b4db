"""`invact encoder train`: clips to an InvAct encoder.

<out>/encoder/         config.json, model.safetensors (InvActEncoder.from_pretrained)
<out>/language/        the text side
<out>/frames/          decoded clips, made once
<out>/metrics.jsonl    losses and routing diagnostics
<out>/retrieval.json   precision@10 on the validation scenes, beside two baselines
<out>/committed.png    which patches the action token holds
"""

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from invact_vla.errors import UserError
from invact_vla.training.files import write_json
from invact_vla.training.loop import LoopConfig, fit
from invact_vla.training.run_folder import open_run
from latent_actions.invact import sprites  # noqa: F401  registers the data source
from latent_actions.invact.augment import AugmentConfig
from latent_actions.invact.batches import Batches, TextConfig
from latent_actions.invact.clips import ClipData, ClipTable, VideoClips, pair_views
from latent_actions.invact.encoder import EncoderConfig, InvActEncoder
from latent_actions.invact.model import Batch, InvActModel, LossConfig
from latent_actions.invact.pictures import committed_picture
from latent_actions.invact.routing import Routing
from latent_actions.invact.sampler import SamplerConfig
from latent_actions.retrieval.evaluate import baselines, evaluate
from latent_actions.retrieval.protocols import format_table

logger = logging.getLogger(__name__)
_PICTURED = 8  # validation clips in committed.png


@dataclass(frozen=True, kw_only=True)
class RoutingSchedule:
    """Soft rows first, hard rows later: routing from the first step on delays learning."""

    harden_at: float = 0.5  # share of the steps after which rows are hard
    temperature_start: float = 1.0  # of straight-through rows, when they begin
    temperature_end: float = 0.5  # reached `anneal` later
    anneal: float = 0.3  # share of the steps that the temperature takes to fall

    def __post_init__(self) -> None:
        if not 0 <= self.harden_at <= 1 or not 0 < self.anneal <= 1:
            raise ValueError("harden_at must be in [0, 1] and anneal in (0, 1]")
        if min(self.temperature_start, self.temperature_end) <= 0:
            raise ValueError("temperatures must be positive")

    def at(self, step: int, steps: int) -> Routing:
        """How rows are chosen at one step of `steps`."""
        since = step / steps - self.harden_at
        if since < 0:
            return Routing(hard=False, noise=False, temperature=self.temperature_start)
        fall = min(1.0, since / self.anneal) * (self.temperature_start - self.temperature_end)
        return Routing(hard=True, noise=True, temperature=self.temperature_start - fall)


@dataclass(frozen=True, kw_only=True)
class EncoderTrainConfig:
    """Training of an InvAct encoder."""

    out: Path  # run folder
    data: ClipData = field(default_factory=VideoClips)  # clips of both splits
    model: EncoderConfig = field(default_factory=EncoderConfig)  # shape of the encoder
    loss: LossConfig = field(default_factory=LossConfig)  # terms and weights
    sampler: SamplerConfig = field(default_factory=SamplerConfig)  # how batches are drawn
    augment: AugmentConfig = field(default_factory=AugmentConfig)  # crops and colours
    text: TextConfig = field(default_factory=TextConfig)  # what a clip's text is
    routing: RoutingSchedule = field(default_factory=RoutingSchedule)  # when rows become hard
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(steps=1000, batch_size=128)
    )  # the loop
    workers: int = 2  # decoding processes
    seed: int = 0  # weights, batches, augmentation and noise
    overwrite: bool = False  # replace a run folder of another config


def main(config: EncoderTrainConfig) -> Path:
    """Train, evaluate, write the products; returns the run folder."""
    run = open_run(
        config.out,
        config,
        parents=config.data.parents(),
        overwrite=config.overwrite,
        seed=config.seed,
    )
    if run.finished:
        return run.folder
    table = config.data.table(config.model.frames, run.folder / "frames", config.workers)
    _check_scenes(table)
    model = train(config, table, run.folder)
    model.encoder.save_pretrained(run.folder / "encoder")
    model.language.save_pretrained(run.folder / "language")
    result = evaluate(
        {"encoder": model.encoder.embed, **baselines(config.model, config.seed)}, table, "val"
    )
    write_json(run.folder / "retrieval.json", result)
    print(format_table(result["encoders"], result["levels"]))
    if model.encoder.commit_blocks:
        _draw(model.encoder, table, run.folder / "committed.png")
    run.finish({**result["encoders"]["encoder"], "levels": result["levels"]})
    return run.folder


def train(config: EncoderTrainConfig, table: ClipTable, folder: Path) -> InvActModel:
    """The training itself: a function of the config, the table and the seed."""
    batches = Batches(
        table,
        table.rows_of("train"),
        size=config.model.size,
        sampler=config.sampler,
        augmentation=config.augment,
        text=config.text,
        seed=config.seed,
    )
    torch.manual_seed(config.seed)
    model = InvActModel(config.model, config.loss, batches.verbs)
    parameters = sum(p.numel() for p in model.encoder.parameters())
    logger.info("encoder of %.2f M parameters, %d verbs", parameters / 1e6, len(batches.verbs))

    def loss_fn(wrapped: nn.Module, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        return wrapped(batch, config.routing.at(step, config.loop.steps))

    def batch_at(step: int) -> Batch:
        return batches(step, config.loop.batch_size)

    loop = replace(config.loop, seed=config.seed)
    fit(model, loss_fn, batch_at, loop, folder, description="train InvAct")
    return model


def _check_scenes(table: ClipTable) -> None:
    """Refuse an evaluation on scenes that training has seen."""
    scenes = {
        split: {table.scene[row] for row in table.rows_of(split)} for split in ("train", "val")
    }
    if not scenes["train"] or not scenes["val"]:
        raise UserError(f"clips are needed of both splits, got scenes {scenes}")
    shared = scenes["train"] & scenes["val"]
    if shared:
        logger.warning(
            "%d of %d validation scenes are also trained on", len(shared), len(scenes["val"])
        )


def _draw(encoder: InvActEncoder, table: ClipTable, path: Path) -> None:
    """Committed tokens of a few validation moments, ego and exo."""
    pairs = pair_views(table, table.rows_of("val"))
    picks = np.linspace(0, len(pairs.ego) - 1, min(_PICTURED // 2, len(pairs.ego))).astype(int)
    rows = np.stack([pairs.ego[picks], pairs.exo[picks]], axis=1).reshape(-1)
    frames = table.read(rows)
    committed_picture(frames, encoder.committed(frames), path)
