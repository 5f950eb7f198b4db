"""Training of an InvAct encoder: the config of a stage, and the training itself."""

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from invact_vla.training.checkpoint import gather_full_model
from invact_vla.training.device import Device
from invact_vla.training.distributed import rank_info
from invact_vla.training.loop import LoopConfig, fit
from latent_actions.encoder.displacement_fit import (
    DisplacementConfig,
    check_known,
    fit_displacement,
)
from latent_actions.encoder.encoder_config import EncoderConfig
from latent_actions.encoder.inputs import sprites  # noqa: F401  registers the data source
from latent_actions.encoder.inputs.augment import AugmentConfig
from latent_actions.encoder.inputs.batches import ActionConfig, ClipBatches, ClipTextConfig
from latent_actions.encoder.inputs.clips import ClipData, ClipTable, VideoClips
from latent_actions.encoder.inputs.sampler import SamplerConfig
from latent_actions.encoder.model import Batch, InvActModel, LossConfig, checkpoint_blocks
from latent_actions.encoder.readout import ReadoutConfig, project_action
from latent_actions.encoder.routing import Routing
from latent_actions.encoder.start import average, start_from

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RoutingSchedule:
    """Soft routing first, hard later: hard routing from the first step on delays learning."""

    hard_after: float = 0.5  # share of the steps after which routing is hard
    sharpen_to: float = 1.0  # temperature of soft routing when it hardens; it falls from 1 evenly
    temperature_start: float = 1.0  # of straight-through gradients, when they begin
    temperature_end: float = 0.5  # reached `anneal` later
    anneal: float = 0.3  # share of the steps that the temperature takes to fall

    def __post_init__(self) -> None:
        if not 0 <= self.hard_after <= 1 or not 0 < self.anneal <= 1:
            raise ValueError("hard_after must be in [0, 1] and anneal in (0, 1]")
        if min(self.sharpen_to, self.temperature_start, self.temperature_end) <= 0:
            raise ValueError("temperatures must be positive")

    def at(self, step: int, steps: int) -> Routing:
        """How patches are routed at one step of `steps`."""
        since = step / steps - self.hard_after
        if since < 0:
            warm = 1 + (self.sharpen_to - 1) * step / steps / self.hard_after
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
    augment: AugmentConfig = field(default_factory=AugmentConfig)  # crops and colors
    text: ClipTextConfig = field(default_factory=ClipTextConfig)  # what a clip's text is
    action: ActionConfig = field(default_factory=ActionConfig)  # what is one action, what is not
    # the action token, projected once training is over
    readout: ReadoutConfig = field(default_factory=ReadoutConfig)
    # where the hand went, beside the embedding, fitted after that
    displacement: DisplacementConfig = field(default_factory=DisplacementConfig)
    routing: RoutingSchedule = field(default_factory=RoutingSchedule)  # when routing becomes hard
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=1000, batch_size=128))  # loop
    start: Path | None = None  # run or folder of an encoder to start from; none: random weights
    # part of those weights in the ones that are kept at the end: what was trained on one kind of video
    # then holds better on others (Wortsman et al. 2022, arxiv.org/abs/2109.01903)
    start_weight: float = 0.0
    gradient_checkpointing: bool = False  # recompute blocks backward: less memory, 1/3 more time
    frames: Path | None = None  # folder of decoded frames to use or fill; default: <out>/frames
    workers: int = 2  # decoding processes
    device: str = "auto"  # where it is trained and evaluated: auto | cpu | cuda | cuda:N | mps
    seed: int = 0  # weights, batches, augmentation and noise
    overwrite: bool = False  # replace a run folder of another config

    def __post_init__(self) -> None:
        if not 0 <= self.start_weight < 1 or (self.start_weight and self.start is None):
            raise ValueError(
                f"start_weight must be in [0, 1), and 0 without start, got {self.start_weight}"
            )
        if self.readout.width and self.model.action_dim:
            raise ValueError("give readout.width (fitted) or model.action_dim (trained), not both")
        if self.readout.width >= min(self.model.width, self.model.embedding):
            raise ValueError(
                f"readout.width {self.readout.width} keeps all of an action token of "
                f"{self.model.width} numbers and an embedding of {self.model.embedding}: give less, "
                "or 0 for no readout"
            )
        if self.model.displacement:
            raise ValueError(
                "model.displacement is what fitting made: say displacement.target instead"
            )
        if self.model.has_register_encoder and not self.loss.scene:
            raise ValueError(
                "registers of model.commit.register_encoder separate learn from loss.scene alone: "
                "give it a weight, such as 0.1, or take register_encoder shared"
            )


def train(
    config: EncoderTrainConfig, table: ClipTable, folder: Path, device: Device = "auto"
) -> InvActModel:
    """The training itself: a function of the config, the table and the seed."""
    rows = table.rows_of("train")
    check_known(table, rows, config.displacement)
    batches = ClipBatches(
        table, rows, size=config.model.size, sampler=config.sampler, augmentation=config.augment,
        text=config.text, action=config.action, seed=config.seed, part=rank_info(),
    )  # fmt: skip

    def build() -> InvActModel:
        torch.manual_seed(config.seed)
        model = InvActModel(config.model, config.loss, batches.verbs)
        if config.start is not None:
            start_from(model, config.start)
        return model

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
    model = gather_full_model(model, build)
    if config.start_weight:
        average(model, build(), config.start_weight)
    if config.readout.width:
        project_action(model.encoder, table, rows, config.readout, config.seed)
    windows = config.displacement, config.augment, config.seed
    fit_displacement(model.encoder, table, rows, *windows)
    return model
