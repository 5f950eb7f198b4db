"""`invact vla posttrain`: teach an OpenVLA robot actions from demonstrations.

Input: camera images, the instruction and, if asked for, the robot's state; target: the next `chunk`
actions, normalized, through one of the action heads (`--head.type tokens|oft|text`). The statistics go
into the checkpoint, which then is a policy.

    <out>/model/           checkpoint folder of the policy, merged where LoRA trained it
    <out>/adapter/         with LoRA: the adapter alone, with the hash of its base
    <out>/summary.json     loss and L1 on held-out demonstrations, also with another episode's pictures

Axis letters: T steps, B batch, V pictures of an example, S side of the model's images (px).
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invact_vla.core.cache_folder import cache_folder
from invact_vla.core.errors import UserError
from invact_vla.core.run_folder import run_of
from invact_vla.data.action_stats import ActionStats, Bounds, normalize
from invact_vla.data.dataset import DatasetConfig, RobotDataset, long_enough, require
from invact_vla.data.frame_cache import FrameCache
from invact_vla.data.readers import open_dataset
from invact_vla.data.stored_dataset import action_fault
from invact_vla.openvla.adapters.adapter import attach, save_adapter
from invact_vla.openvla.adapters.lora import LoraConfig, merge
from invact_vla.openvla.checkpoints.checkpoint import VLACheckpoint, load_pretrained
from invact_vla.openvla.checkpoints.folder import ADAPTER, adapter_folder
from invact_vla.openvla.config import HeadConfig, TokensHeadConfig
from invact_vla.openvla.heads import ActionHead, action_head
from invact_vla.openvla.inference.policy import as_policy
from invact_vla.openvla.model import OpenVLA
from invact_vla.recipes.train import (
    Examples,
    Task,
    TrainConfig,
    mean_metrics,
    save_checkpoint,
    train,
)
from invact_vla.training.distributed import main_process_first
from invact_vla.training.loop import LoopConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PosttrainConfig(TrainConfig):
    """Fine-tuning of one checkpoint on robot demonstrations."""

    out: Path = Path("runs/posttrain")  # folder of the run
    model: Path = Path("runs/pretrain/model")  # checkpoint to start from, or the run that holds it
    demos: Path = Path("runs/demos")  # LIBERO HDF5 file, folder of them, LeRobot or RLDS folder
    data: DatasetConfig = field(default_factory=DatasetConfig)  # how `demos` is to be understood
    dataset: str = "libero_10"  # name of the statistics in the checkpoint
    max_demos: int | None = None  # demonstrations per task to train on; null: all
    held_out: int = 2  # last demonstrations of each task kept for measuring
    chunk: int = 1  # actions per call (published OpenVLA: 1)
    wrist: bool = False  # also read the wrist camera (OpenVLA-OFT)
    proprio: bool = False  # also read the robot's state (OpenVLA-OFT)
    # what actions are normalized by: quantile (q01 and q99, as published) or minmax, which also keeps
    # motions that less than 1 % of the steps make, such as a turn of the hand
    action_bounds: Bounds = "quantile"
    # decode answers near 0 to exactly 0, in dimensions that the demonstrations mostly leave at 0
    action_rest: bool = False
    head: HeadConfig = field(default_factory=TokensHeadConfig)  # how actions leave the model
    lora: LoraConfig | None = None  # train adapters on the frozen checkpoint, e.g. --lora.rank 32
    frames: Path | None = None  # folder of prepared frames; null: the user's cache folder
    workers: int = 2  # processes that prepare frames
    # training
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(steps=500, batch_size=32))

    def __post_init__(self) -> None:
        if self.chunk < 1 or self.held_out < 0 or self.workers < 0:
            raise ValueError("chunk must be at least 1, held_out and workers at least 0")
        if self.data.path not in (DatasetConfig.path, self.demos):
            raise ValueError(
                f"give the demonstrations as --demos {self.data.path}, not as data.path"
            )
        if not self.dataset:
            raise ValueError("dataset needs a name, such as libero_10")
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
    """Check, train, save, evaluate; returns the run folder."""
    inputs: dict[str, Path | None] = {"demos": run_of(config.demos)}
    if config.lora is not None and config.lora.adapter is not None:
        adapter = adapter_folder(config.lora.adapter)
        config = replace(config, lora=replace(config.lora, adapter=adapter))
        inputs["adapter"] = run_of(adapter)
    return train(config, "posttrain", inputs, prepare, save)


def prepare(config: PosttrainConfig, folder: Path, device: torch.device) -> Task:
    """Open the demonstrations, load the start, make it a policy of them."""
    dataset = open_dataset(config.source)
    start = load_pretrained(config.model, dtype=config.dtype, device=device)
    return policy_task(config, dataset, start)


def save(config: PosttrainConfig, trained: VLACheckpoint, folder: Path) -> None:
    """The checkpoint; with LoRA the adapter alone, and the merged model."""
    if config.lora is not None:
        save_adapter(trained, folder / ADAPTER, config.model)
        merge(trained.model)
    save_checkpoint(config, trained, folder)


def policy_task(config: PosttrainConfig, dataset: RobotDataset, start: VLACheckpoint) -> Task:
    """Check the data, compute its statistics, prepare its frames, give the model what it lacks."""
    require(dataset, cameras=config.cameras, state=config.proprio)
    training, held_out = split(dataset, config)
    statistics = dataset_statistics(dataset, training, config.action_bounds, config.action_rest)
    low, high = (np.array(statistics["action"][end]) for end in ("min", "max"))
    libero = not dataset.action_mask[-1] and config.data.action_range != "any"
    if fault := action_fault(low, high, libero):
        logger.warning("%s: %s", config.demos, fault)
    policy = as_policy(
        start, head=config.head, chunk=config.chunk, cameras=config.cameras,
        proprio_dim=dataset.state_dim if config.proprio else 0, action_dim=dataset.action_dim,
        norm_stats={config.dataset: statistics}, crop=config.augment, seed=config.seed,
    )  # fmt: skip
    if config.lora is not None:
        attach(policy.model, config.lora, config.seed)
    processor, root = policy.processor, config.frames or cache_folder("frames")
    cache = FrameCache.of(root, dataset, config.cameras, processor.size, processor.preparation)
    episodes = [*training, *held_out]
    main_process_first(lambda: cache.build(dataset, episodes, processor.prepare, config.workers))
    frames, head = cache.reader(), action_head(policy)
    learned = RobotExamples(policy, head, dataset, training, frames)
    unseen = RobotExamples(policy, head, dataset, held_out, frames) if held_out else None
    known, names = dataset.episodes, {"training": training, "held_out": held_out}
    summary = {
        "demonstrations": len(training), "samples": len(learned),
        "tasks": sorted({known[i].task for i in training}),
        "episodes": {name: [known[i].name for i in chosen] for name, chosen in names.items()},
    }  # fmt: skip
    return Task(policy, head, learned, unseen, summary)


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


ReadFrames = Callable[[np.ndarray, np.ndarray], np.ndarray]  # episodes, steps -> (B, V, S, S, 3)


class RobotExamples(Examples):
    """Every step of every chosen episode from which a chunk can be learned, normalized by the policy's
    statistics: pictures, instruction and state in, a chunk of actions out. Numbers are held in memory
    (some 60 bytes per step), frames are read from the frame cache."""

    def __init__(
        self, policy: VLACheckpoint, head: ActionHead, dataset: RobotDataset,
        episodes: Sequence[int], frames: ReadFrames,
    ) -> None:  # fmt: skip
        own, (statistics,) = policy.config.invact, policy.config.norm_stats.values()
        self._head, self._processor, self._frames = head, policy.processor, frames
        self.images, self._chunk = len(own.cameras), own.chunk
        known = [(i, dataset.numbers(i)) for i in episodes]
        known = [(i, n) for i, n in known if len(n.starts(self._chunk))]
        if not known:
            raise UserError(
                f"in no demonstration did the expert act for {self._chunk - 1} steps in a row: lower "
                "--chunk, or make some with longer turns or without a policy"
            )
        episodes, numbers = [i for i, _ in known], [n for _, n in known]
        self.episodes = np.asarray(episodes)
        lengths = np.array([len(n.actions) for n in numbers])
        stats = ActionStats.from_json(statistics["action"])
        self._actions = np.concatenate([normalize(n.actions, stats) for n in numbers], dtype="f4")
        self._state = None
        if own.proprio_dim:
            stats = ActionStats.from_json(statistics["proprio"])
            states = [normalize(n.state, stats) for n in numbers if n.state is not None]
            self._state = torch.from_numpy(np.concatenate(states, dtype="f4"))
        self._instructions = [dataset.episodes[i].instruction for i in episodes]
        self._first = np.concatenate([[0], np.cumsum(lengths)[:-1]])  # row of each episode's step 0
        starts = [n.starts(self._chunk) for n in numbers]
        self._sizes = np.array([len(s) for s in starts])
        self._episode = np.repeat(np.arange(len(episodes)), self._sizes)  # of each example
        self._step = np.concatenate(starts)

    def __len__(self) -> int:
        return len(self._step)

    def batch(
        self, rows: np.ndarray, draws: np.ndarray | None = None, seen: np.ndarray | None = None
    ) -> dict[str, Tensor]:
        """seen: (B,) examples whose pictures are taken instead (a control)."""
        episode, seen = self._episode[rows], rows if seen is None else seen
        at = self._first[episode] + self._step[rows]
        inputs = self._head.batch(
            [self._instructions[i] for i in episode],
            self._actions[at[:, None] + np.arange(self._chunk)],
        )
        frames = self._frames(self.episodes[self._episode[seen]], self._step[seen])
        inputs["pixel_values"] = self._processor.pixel_values_of_views(frames, draws)
        return inputs if self._state is None else {**inputs, "proprio": self._state[at]}

    def other_episode(self, rows: np.ndarray) -> np.ndarray:
        """For each example one at about the same step of the next episode (of any task)."""
        first = np.concatenate([[0], np.cumsum(self._sizes)[:-1]])
        other = (self._episode[rows] + 1) % len(self.episodes)
        return first[other] + np.minimum(rows - first[self._episode[rows]], self._sizes[other] - 1)

    def evaluate(self, head: ActionHead, model: OpenVLA) -> dict[str, float]:
        """Loss and metrics, and the same with another episode's pictures: a policy that looks gets
        worse with these."""
        found: dict[str, float] = {"held_out_samples": len(self)}
        others = lambda rows: self.batch(rows, seen=self.other_episode(rows))
        for suffix, batch_of in (("", self.batch), ("_other_picture", others)):
            metrics = mean_metrics(head, model, len(self), batch_of)
            found |= {f"held_out_{name}{suffix}": value for name, value in metrics.items()}
        return found


def dataset_statistics(
    dataset: RobotDataset, episodes: Sequence[int], bounds: Bounds = "quantile", rest: bool = False
) -> dict[str, Any]:
    """The published layout of one data set's statistics, over some episodes; bounds and rest are
    those of its actions."""
    numbers = [dataset.numbers(i) for i in episodes]
    actions = np.concatenate([n.actions for n in numbers])
    statistics: dict[str, Any] = {
        "action": ActionStats.of(actions, dataset.action_mask, bounds, rest).to_json(),
        "num_transitions": len(actions),
        "num_trajectories": len(episodes),
    }
    states = [n.state for n in numbers if n.state is not None]
    if len(states) == len(numbers):
        both = np.concatenate(states)
        statistics["proprio"] = ActionStats.of(both, [True] * both.shape[1]).to_json()
    return statistics
