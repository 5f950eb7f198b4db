"""`invact encoder vila`: train our form of VILA on the clips that InvAct trains on.

<out>/vila/          config.json, model.safetensors (baseline `type: vila`)
<out>/metrics.jsonl  losses
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import nn

from invact_vla.core.run_folder import open_run
from invact_vla.training.device import stage_device
from invact_vla.training.loop import LoopConfig, fit
from latent_actions.encoder.inputs import sprites  # noqa: F401  registers the data source
from latent_actions.encoder.inputs.augment import AugmentConfig
from latent_actions.encoder.inputs.batches import ClipBatches, ClipTextConfig
from latent_actions.encoder.inputs.clips import ClipData, VideoClips
from latent_actions.encoder.inputs.sampler import SamplerConfig
from latent_actions.retrieval.baselines.vila import PART, Vila, VilaShape


@dataclass(frozen=True, kw_only=True)
class VilaTrainConfig:
    """Training of our VILA."""

    out: Path  # run folder
    data: ClipData = field(default_factory=VideoClips)  # clips; those of the train split are used
    model: VilaShape = field(default_factory=VilaShape)  # sizes and loss
    sampler: SamplerConfig = field(default_factory=SamplerConfig)  # how batches are drawn
    augment: AugmentConfig = field(default_factory=AugmentConfig)  # crops and colors
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=1000, batch_size=128))  # loop
    workers: int = 2  # decoding processes
    seed: int = 0  # weights, batches and augmentation
    overwrite: bool = False  # replace a run folder of another config
    device: str = "auto"  # where it is trained: auto | cpu | cuda | cuda:N | mps


def main(config: VilaTrainConfig) -> Path:
    """Train and save; returns the run folder."""
    run = open_run(
        config.out, config, inputs=config.data.parents(), overwrite=config.overwrite,
        seed=config.seed,
    )  # fmt: skip
    if run.finished:
        return run.folder
    table = config.data.table(
        config.model.frames, run.folder / "frames", config.workers, ("train",)
    )
    batches = ClipBatches(
        table, table.rows_of("train"), size=config.model.size, sampler=config.sampler,
        augmentation=config.augment, text=ClipTextConfig(), seed=config.seed,
    )  # fmt: skip
    torch.manual_seed(config.seed)
    model = Vila(config.model)
    loop = replace(config.loop, seed=config.seed)
    fit(
        model, lambda model, batch, step: model(batch), lambda step: batches(step, loop.batch_size),
        loop, run.folder, after_step=_follow, description="train VILA",
        device=stage_device(run, config.device),
    )  # fmt: skip
    model.save_pretrained(run.folder / PART)
    run.finish({"parameters": sum(p.numel() for p in model.parameters() if p.requires_grad)})
    return run.folder


def _follow(model: nn.Module, step: int, metrics: dict[str, float]) -> None:
    assert isinstance(model, Vila)
    model.follow()
