"""`invact vla posttrain`: teach an OpenVLA robot actions from demonstrations.

Input: camera images, the instruction and, if asked for, the robot's state; target: the next `chunk`
actions after q01/q99 normalization, through one of the action heads (`--head.type tokens|oft|text`).
The statistics go into the checkpoint, which then is a policy.

    <out>/model/           checkpoint folder of the policy, merged where LoRA trained it
    <out>/adapter/         with LoRA: the adapter alone, with the hash of its base
    <out>/summary.json     loss and L1 on held-out demonstrations, also with another episode's pictures
"""

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from invact_vla.core.cache_folder import cache_folder
from invact_vla.core.errors import UserError
from invact_vla.core.run_folder import open_run, run_of
from invact_vla.data.action_stats import ActionStats
from invact_vla.data.dataset import RobotDataset
from invact_vla.data.dataset_config import DatasetConfig
from invact_vla.data.frame_cache import FrameCache
from invact_vla.data.open_dataset import open_dataset
from invact_vla.data.robot_samples import RobotBatch, RobotSamples
from invact_vla.data.validate import long_enough, require
from invact_vla.openvla.adapters.adapter import save_adapter
from invact_vla.openvla.adapters.attach import attach
from invact_vla.openvla.adapters.lora import LoraConfig, merge
from invact_vla.openvla.checkpoints.checkpoint import (
    VLACheckpoint,
    load_pretrained,
    save_pretrained,
)
from invact_vla.openvla.checkpoints.folder import ADAPTER, MODEL, adapter_folder, checkpoint_folder
from invact_vla.openvla.head_configs import HeadConfig, TokensHeadConfig
from invact_vla.openvla.heads import ActionHead, action_head
from invact_vla.openvla.heads.head import device_of
from invact_vla.openvla.images import AUGMENTATION_DRAWS
from invact_vla.openvla.inference.as_policy import as_policy
from invact_vla.openvla.model import OpenVLA
from invact_vla.training.checkpoint import gather_full_model
from invact_vla.training.device import stage_device
from invact_vla.training.distributed import (
    init_distributed,
    is_main,
    main_process_first,
    run_on_main,
)
from invact_vla.training.loop import LoopConfig, fit
from invact_vla.training.sampling import local_positions, rows_at

logger = logging.getLogger(__name__)
_MEASURED = 64  # samples per batch when measuring


@dataclass(frozen=True, kw_only=True)
class PosttrainConfig:
    """Fine-tuning of one checkpoint on robot demonstrations."""

    out: Path = Path("runs/posttrain")  # folder of the run
    seed: int = 0  # of what a new camera, state token or head adds to the model
    overwrite: bool = False  # replace a run with another config
    model: Path = Path("runs/pretrain/model")  # checkpoint to start from, or the run that holds it
    demos: Path = Path("runs/demos")  # LIBERO HDF5 file, folder of them, LeRobot or RLDS folder
    data: DatasetConfig = field(default_factory=DatasetConfig)  # how `demos` is to be understood
    dataset: str = "libero_10"  # name of the statistics in the checkpoint
    max_demos: int | None = None  # demonstrations per task to train on; null: all
    held_out: int = 2  # last demonstrations of each task kept for measuring
    chunk: int = 1  # actions per call (published OpenVLA: 1)
    wrist: bool = False  # also read the wrist camera (OpenVLA-OFT)
    proprio: bool = False  # also read the robot's state (OpenVLA-OFT)
    head: HeadConfig = field(default_factory=TokensHeadConfig)  # how actions leave the model
    lora: LoraConfig | None = None  # train adapters on the frozen checkpoint, e.g. --lora.rank 32
    merge: bool = True  # with lora: write the merged model too, which rollouts need
    augment: bool = True  # random crops and colors
    frames: Path | None = None  # folder of prepared frames; null: the user's cache folder
    workers: int = 2  # processes that prepare frames
    device: str = "auto"  # auto, cpu, cuda, cuda:N or mps
    dtype: str = "fp32"  # of the weights while training: fp32, or bf16 for a frozen base with LoRA
    gradient_checkpointing: bool = False  # recompute layers backward: less memory, 1/3 more time
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(steps=500, batch_size=32)
    )  # training

    def __post_init__(self) -> None:
        if self.chunk < 1 or self.held_out < 0 or self.workers < 0:
            raise ValueError("chunk must be at least 1, held_out and workers at least 0")
        if self.max_demos is not None and self.max_demos < 1:
            raise ValueError(f"max_demos must be at least 1, got {self.max_demos}")

    @property
    def source(self) -> DatasetConfig:
        """`data` with the path, and nothing read beyond `max_demos` where that alone decides."""
        first = self.max_demos if self.held_out == 0 else self.data.max_demos
        return replace(self.data, path=self.demos, max_demos=first or self.data.max_demos)

    @property
    def cameras(self) -> tuple[str, ...]:
        """The cameras that the policy reads."""
        return ("agentview", "wrist") if self.wrist else ("agentview",)


def main(config: PosttrainConfig) -> Path:
    """Train, save, measure; returns the run folder."""
    init_distributed(config.device)
    config = replace(config, model=checkpoint_folder(config.model))
    parents = {"model": run_of(config.model), "demos": run_of(config.demos)}
    if config.lora is not None and config.lora.adapter is not None:
        adapter = adapter_folder(config.lora.adapter)
        config = replace(config, lora=replace(config.lora, adapter=adapter))
        parents["adapter"] = run_of(adapter)
    run = run_on_main(lambda: open_run(config.out, config, parents, config.overwrite, config.seed))
    if run.finished:
        return run.folder
    device = stage_device(run, config.device)
    torch.set_num_threads(config.loop.threads)
    dataset = open_dataset(config.source)
    start = load_pretrained(config.model, dtype=config.dtype, device=device)
    task = prepare(config, dataset, start)
    pretrained = train(config, task, run.folder, device)
    if is_main():
        save(config, pretrained, run.folder)
        summary = {**task.summary, "samples": len(task.training)}
        if task.held_out is not None:
            summary |= measure(task.head, pretrained, task.held_out)
            logger.info("%s: %s", run.folder, summary)
        run.finish(summary)
    return run.folder


def save(config: PosttrainConfig, pretrained: VLACheckpoint, folder: Path) -> None:
    """The checkpoint; with LoRA the adapter alone, and the merged model if asked for."""
    if config.lora is not None:
        save_adapter(pretrained, folder / ADAPTER, config.model)
        if not config.merge:
            return
        merge(pretrained.model)
    save_pretrained(pretrained, folder / MODEL)


@dataclass(frozen=True)
class PolicyTask:
    """A model made into a policy, and the samples that it learns and is measured on."""

    pretrained: VLACheckpoint
    head: ActionHead
    training: RobotSamples
    held_out: RobotSamples | None
    summary: dict[str, Any]


def prepare(config: PosttrainConfig, dataset: RobotDataset, start: VLACheckpoint) -> PolicyTask:
    """Check the data, compute its statistics, prepare its frames, give the model what it lacks."""
    require(dataset, cameras=config.cameras, state=config.proprio)
    training, held_out = split(dataset, config)
    statistics = dataset_statistics(dataset, training)
    pretrained = as_policy(
        start,
        head=config.head,
        chunk=config.chunk,
        cameras=config.cameras,
        proprio_dim=dataset.state_dim if config.proprio else 0,
        action_dim=dataset.action_dim,
        norm_stats={config.dataset: statistics},
        crop=config.augment,
        seed=config.seed,
    )
    if config.lora is not None:
        attach(pretrained.model, config.lora, config.seed)
    cache = prepared_frames(config, dataset, [*training, *held_out], pretrained)
    samples = [
        make_samples(config, dataset, episodes, cache, statistics) if episodes else None
        for episodes in (training, held_out)
    ]
    assert samples[0] is not None  # `split` leaves some
    tasks = sorted({dataset.episodes[i].task for i in training})
    summary = {
        "demonstrations": len(training),
        "tasks": tasks,
        "episodes": {name: [dataset.episodes[i].name for i in chosen]
                     for name, chosen in (("training", training), ("held_out", held_out))},
    }  # fmt: skip
    return PolicyTask(pretrained, action_head(pretrained), samples[0], samples[1], summary)


def train(
    config: PosttrainConfig, task: PolicyTask, folder: Path, device: torch.device
) -> VLACheckpoint:
    """The training itself: a function of the config and the task."""
    pretrained, head = task.pretrained, task.head
    if config.gradient_checkpointing:
        pretrained.model.checkpoint_gradients()

    def loss_fn(
        model: nn.Module, batch: dict[str, Tensor], step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return head.loss(model, batch)

    batches = Batches(config, head, pretrained, task.training)
    fit(pretrained.model, loss_fn, batches, config.loop, folder, None, "posttrain", device)
    model = gather_full_model(pretrained.model, lambda: OpenVLA(pretrained.config))
    return replace(pretrained, model=model)


def split(dataset: RobotDataset, config: PosttrainConfig) -> tuple[list[int], list[int]]:
    """(training, held-out) episodes: of each task the last `held_out`, and the first `max_demos` of
    the rest. Too short ones are left out."""
    tasks: dict[str, list[int]] = {}
    for index in long_enough(dataset, config.chunk):
        tasks.setdefault(dataset.episodes[index].task, []).append(index)
    training, held_out = [], []
    for task, members in tasks.items():
        if len(members) <= config.held_out:
            raise UserError(
                f"{task} has {len(members)} demonstrations, {config.held_out} of them held out: "
                "lower --held_out or make more"
            )
        cut = len(members) - config.held_out
        training += members[:cut][: config.max_demos]
        held_out += members[cut:]
    return training, held_out


def dataset_statistics(dataset: RobotDataset, episodes: list[int]) -> dict[str, Any]:
    """The published layout of one data set's statistics, over the training episodes."""
    numbers = [dataset.numbers(i) for i in episodes]
    actions = np.concatenate([n.actions for n in numbers])
    statistics: dict[str, Any] = {
        "action": ActionStats.of(actions, list(dataset.action_mask)).to_json(),
        "num_transitions": len(actions),
        "num_trajectories": len(episodes),
    }
    states = [n.state for n in numbers if n.state is not None]
    if len(states) == len(numbers):
        both = np.concatenate(states)
        statistics["proprio"] = ActionStats.of(both, [True] * both.shape[1]).to_json()
    return statistics


def prepared_frames(
    config: PosttrainConfig, dataset: RobotDataset, episodes: list[int], pretrained: VLACheckpoint
) -> FrameCache:
    """The frame cache of the data set and the model's processor, with these episodes in it."""
    processor = pretrained.processor
    root = config.frames or cache_folder("frames")
    cache = FrameCache.of(root, dataset, config.cameras, processor.size, processor.preparation)
    main_process_first(lambda: cache.build(dataset, episodes, processor.prepare, config.workers))
    return cache


def make_samples(
    config: PosttrainConfig,
    dataset: RobotDataset,
    episodes: list[int],
    cache: FrameCache,
    statistics: dict[str, Any],
) -> RobotSamples:
    """Samples of some episodes, normalized by the training statistics."""
    state = ActionStats.from_json(statistics["proprio"]) if config.proprio else None
    actions = ActionStats.from_json(statistics["action"])
    return RobotSamples(dataset, episodes, cache.reader(), actions, state, config.chunk)


class Batches:
    """batch_at(step): this process's part of the global batch, a function of (seed, step) alone."""

    def __init__(
        self,
        config: PosttrainConfig,
        head: ActionHead,
        pretrained: VLACheckpoint,
        samples: RobotSamples,
    ) -> None:
        self._size, self._seed = config.loop.batch_size, config.loop.seed
        self._augment, self._samples = config.augment, samples
        self._head, self._pretrained = head, pretrained

    def __call__(self, step: int) -> dict[str, Tensor]:
        place = local_positions(self._size)
        rows = rows_at(step, len(self._samples), self._size, self._seed)[place]
        batch = self._samples.batch(rows)
        draws = None
        if self._augment:  # drawn for the global batch, so that processes share one stream
            shape = (self._size, batch.frames.shape[1], AUGMENTATION_DRAWS)
            rng = np.random.default_rng([self._seed, step, 2])
            draws = rng.random(shape, np.float32)[place]
        return as_inputs(self._head, self._pretrained, batch, draws)


def as_inputs(
    head: ActionHead, pretrained: VLACheckpoint, batch: RobotBatch, draws: np.ndarray | None = None
) -> dict[str, Tensor]:
    """The model's keyword arguments. draws: (B, V, 6) random numbers of the augmentation, or None."""
    inputs = head.batch(batch.instructions, batch.actions)
    views = [
        pretrained.processor.pixel_values(
            batch.frames[:, v], None if draws is None else np.ascontiguousarray(draws[:, v])
        )
        for v in range(batch.frames.shape[1])
    ]
    inputs["pixel_values"] = torch.cat(views, dim=1)
    if batch.state is not None:
        inputs["proprio"] = torch.from_numpy(batch.state)
    return inputs


@torch.no_grad()
def measure(head: ActionHead, pretrained: VLACheckpoint, samples: RobotSamples) -> dict[str, Any]:
    """Loss and metrics on held-out demonstrations, and the same with another episode's pictures: a
    policy that looks gets worse with these."""
    pretrained.model.eval()
    device = device_of(pretrained.model)
    sums: dict[str, float] = {}
    for start in range(0, len(samples), _MEASURED):
        rows = np.arange(start, min(start + _MEASURED, len(samples)))
        for suffix, seen in (("", None), ("_other_picture", samples.other_episode(rows))):
            inputs = as_inputs(head, pretrained, samples.batch(rows, seen))
            inputs = {name: value.to(device) for name, value in inputs.items()}
            loss, metrics = head.loss(pretrained.model, inputs)
            for name, value in {"loss": loss, **metrics}.items():
                key = f"held_out_{name}{suffix}"
                sums[key] = sums.get(key, 0.0) + float(value) * len(rows)
    means = {name: value / len(samples) for name, value in sums.items()}
    return {"held_out_samples": len(samples), **means}
