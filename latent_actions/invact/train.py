"""`invact encoder train`: clips to an InvAct encoder.

<out>/encoder/         config.json, model.safetensors, README.md (InvActEncoder.from_pretrained)
<out>/language/        the text side
<out>/frames/          decoded clips, made once (or `frames`)
<out>/metrics.jsonl    losses and routing diagnostics
<out>/retrieval.json   precision@10 on the validation scenes, beside two baselines
<out>/committed.png    which patches the action token holds

With `accelerate launch --num_processes W` (or a config of configs/accelerate) W processes share each
batch and the loss is that of the whole batch; rank 0 writes.
"""

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from invact_vla.training.checkpoint import unsharded
from invact_vla.training.device import Device, stage_device
from invact_vla.training.distributed import join, main_first, on_main, part
from invact_vla.training.files import write_json
from invact_vla.training.loop import LoopConfig, fit
from invact_vla.training.run_folder import Run, open_run
from latent_actions.invact import sprites  # noqa: F401  registers the data source
from latent_actions.invact.augment import AugmentConfig
from latent_actions.invact.batches import ActionConfig, Batches, TextConfig
from latent_actions.invact.card import model_card
from latent_actions.invact.checks import check_clips, unseen_verbs
from latent_actions.invact.clips import ClipData, ClipTable, VideoClips, pair_views
from latent_actions.invact.encoder import EncoderConfig, InvActEncoder
from latent_actions.invact.model import Batch, InvActModel, LossConfig, checkpoint_blocks
from latent_actions.invact.pictures import committed_picture
from latent_actions.invact.readout import ReadoutConfig, narrow_action
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
    sharpen_to: float = 1.0  # temperature of soft rows when they harden; it falls from 1 evenly
    temperature_start: float = 1.0  # of straight-through rows, when they begin
    temperature_end: float = 0.5  # reached `anneal` later
    anneal: float = 0.3  # share of the steps that the temperature takes to fall

    def __post_init__(self) -> None:
        if not 0 <= self.harden_at <= 1 or not 0 < self.anneal <= 1:
            raise ValueError("harden_at must be in [0, 1] and anneal in (0, 1]")
        if min(self.sharpen_to, self.temperature_start, self.temperature_end) <= 0:
            raise ValueError("temperatures must be positive")

    def at(self, step: int, steps: int) -> Routing:
        """How rows are chosen at one step of `steps`."""
        since = step / steps - self.harden_at
        if since < 0:
            warm = 1 + (self.sharpen_to - 1) * step / steps / self.harden_at
            return Routing(hard=False, noise=False, temperature=warm)
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
    action: ActionConfig = field(default_factory=ActionConfig)  # what is one action, what is not
    # the action token, cut down once training is over
    readout: ReadoutConfig = field(default_factory=ReadoutConfig)
    routing: RoutingSchedule = field(default_factory=RoutingSchedule)  # when rows become hard
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(steps=1000, batch_size=128)
    )  # the loop
    gradient_checkpointing: bool = False  # recompute blocks backward: less memory, 1/3 more time
    frames: Path | None = None  # folder of decoded frames to use or fill; default: <out>/frames
    workers: int = 2  # decoding processes
    device: str = "auto"  # where it is trained and evaluated: auto | cpu | cuda | cuda:N | mps
    seed: int = 0  # weights, batches, augmentation and noise
    overwrite: bool = False  # replace a run folder of another config

    def __post_init__(self) -> None:
        if self.sampler.views == "one" and self.loss.contrast.kind == "infonce_pair":
            raise ValueError(
                "loss.contrast.kind infonce_pair needs both views of a moment in a batch: "
                "sampler.views both"
            )
        if self.readout.width and self.model.action_width:
            raise ValueError(
                "give readout.width (fitted) or model.action_width (trained), not both"
            )
        if self.readout.width >= min(self.model.width, self.model.embedding):
            raise ValueError(
                f"readout.width {self.readout.width} keeps all of an action token of "
                f"{self.model.width} numbers and an embedding of {self.model.embedding}: give less, "
                "or 0 for no readout"
            )
        if self.model.own_register_path and not self.loss.scene:
            raise ValueError(
                "registers of a path of their own (model.commit.register_path own) learn from "
                "loss.scene alone: give it a weight, such as 0.1, or register_path trunk"
            )


def main(config: EncoderTrainConfig) -> Path:
    """Train, evaluate, write the products; returns the run folder."""
    join(config.device)
    parents = config.data.parents()
    run = on_main(
        lambda: open_run(
            config.out, config, parents=parents, overwrite=config.overwrite, seed=config.seed
        )
    )
    if run.finished:
        return run.folder
    table = main_first(
        lambda: config.data.table(
            config.model.frames, config.frames or run.folder / "frames", config.workers
        )
    )
    check_clips(table, config.loss.contrast)
    model = train(config, table, run.folder, stage_device(run, config.device))
    on_main(lambda: _finish(config, table, model, run))
    return run.folder


def train(
    config: EncoderTrainConfig, table: ClipTable, folder: Path, device: Device = "auto"
) -> InvActModel:
    """The training itself: a function of the config, the table and the seed."""
    rows = table.rows_of("train")
    batches = Batches(
        table,
        rows,
        size=config.model.size,
        sampler=config.sampler,
        augmentation=config.augment,
        text=config.text,
        action=config.action,
        seed=config.seed,
        part=part(),
    )

    def build() -> InvActModel:
        torch.manual_seed(config.seed)
        return InvActModel(config.model, config.loss, batches.verbs)

    model, steps = build(), config.loop.steps
    parameters = sum(p.numel() for p in model.encoder.parameters())
    logger.info("encoder of %.2f M parameters, %d verbs", parameters / 1e6, len(batches.verbs))
    if config.gradient_checkpointing:
        checkpoint_blocks(model.encoder)

    def loss_fn(wrapped: nn.Module, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        return wrapped(batch, config.routing.at(step, steps), step / steps)

    def batch_at(step: int) -> Batch:
        return batches(step, config.loop.batch_size)

    loop = replace(config.loop, seed=config.seed)
    fit(model, loss_fn, batch_at, loop, folder, description="train InvAct", device=device)
    model = unsharded(model, build)
    if config.readout.width:
        narrow_action(model.encoder, table, rows, config.readout, config.seed)
    return model


def _finish(config: EncoderTrainConfig, table: ClipTable, model: InvActModel, run: Run) -> None:
    """Evaluate and write the products."""
    encoder = model.encoder
    others = baselines(config.model, config.seed, encoder.device)
    result = evaluate({"encoder": encoder.embed, **others}, table, "val")
    result["unseen_verbs"] = unseen_verbs(table)
    encoder.card = model_card(config, table, result, sum(p.numel() for p in encoder.parameters()))
    encoder.save_pretrained(run.folder / "encoder")
    model.language.save_pretrained(run.folder / "language")
    write_json(run.folder / "retrieval.json", result)
    print(format_table(result["encoders"], result["levels"]))
    if encoder.commit_blocks:
        _draw(encoder, table, run.folder / "committed.png")
    found = {"levels": result["levels"], "unseen_verbs": result["unseen_verbs"]}
    run.finish({**result["encoders"]["encoder"], **found})


def _draw(encoder: InvActEncoder, table: ClipTable, path: Path) -> None:
    """Committed tokens of a few validation moments, ego and exo."""
    pairs = pair_views(table, table.rows_of("val"))
    picks = np.linspace(0, len(pairs.ego) - 1, min(_PICTURED // 2, len(pairs.ego))).astype(int)
    rows = np.stack([pairs.ego[picks], pairs.exo[picks]], axis=1).reshape(-1)
    frames = table.read(rows)
    committed_picture(frames, encoder.committed(frames), path)
