"""`invact vla posttrain`: teach an OpenVLA robot actions from demonstrations.

Input: the camera image and the instruction; target: the next `chunk` actions as 7 tokens each of 256
bins, after q01/q99 normalisation, and EOS (OpenVLA, arxiv.org/abs/2406.09246). The statistics go into
the checkpoint, which then is a policy.

    <out>/model/           checkpoint folder of the policy
    <out>/summary.json     token accuracy and L1 on held-out demonstrations
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from tqdm import tqdm

from invact_vla.data.action_stats import ActionStats, normalize
from invact_vla.data.conventions import normalization_mask
from invact_vla.data.lerobot import read_lerobot
from invact_vla.data.lerobot_meta import is_lerobot
from invact_vla.data.libero_hdf5 import RobotEpisode, read_demos
from invact_vla.errors import UserError
from invact_vla.init import MODEL
from invact_vla.openvla.action_tokens import ActionTokens
from invact_vla.openvla.losses import make_loss
from invact_vla.openvla.model import build_model
from invact_vla.openvla.pretrained import Pretrained, load_pretrained, save_pretrained
from invact_vla.openvla.prompt import collate
from invact_vla.training.loop import LoopConfig, fit
from invact_vla.training.run_folder import open_run, run_of

logger = logging.getLogger(__name__)
STATE_SIZE = 8


@dataclass(frozen=True, kw_only=True)
class PosttrainConfig:
    """One arm's post-training."""

    out: Path = Path("runs/posttrain")  # folder of the run
    seed: int = 0  # of what a new camera or state token adds to the model
    overwrite: bool = False  # replace a run with another config
    model: Path = Path("runs/pretrain/model")  # checkpoint to start from
    demos: Path = Path("runs/demos")  # LIBERO HDF5 file, folder of them, or LeRobot v3 folder
    dataset: str = "libero_10"  # name of the statistics in the checkpoint
    max_demos: int | None = None  # demonstrations per task; null: all
    held_out: int = 2  # last demonstrations of each task kept for measuring
    chunk: int = 1  # actions per call (published OpenVLA: 1)
    wrist: bool = False  # also read the wrist camera (OpenVLA-OFT)
    proprio: bool = False  # also read the robot's state (OpenVLA-OFT)
    augment: bool = True  # random crops, brightness and contrast
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(steps=500, batch_size=32)
    )  # training

    def __post_init__(self) -> None:
        if self.chunk < 1 or self.held_out < 0:
            raise ValueError("chunk must be at least 1 and held_out at least 0")


def main(config: PosttrainConfig) -> Path:
    """Train, measure, save; returns the run folder."""
    parents = {"model": run_of(config.model), "demos": run_of(config.demos)}
    run = open_run(config.out, config, parents, config.overwrite, config.seed)
    if run.finished:
        return run.folder
    torch.set_num_threads(config.loop.threads)
    training, held_out = read_all(config)
    statistics = dataset_statistics(training)
    pretrained = as_policy(load_pretrained(config.model), config, statistics)
    data = RobotExamples(pretrained, training, config)
    rng_seed = config.loop.seed

    def batch_at(step: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([rng_seed, step])
        rows = rng.integers(0, len(data), config.loop.batch_size)
        return data.batch(rows, rng if config.augment else None)

    loss_fn = make_loss(pretrained.config)
    fit(pretrained.model, loss_fn, batch_at, config.loop, run.folder, description="posttrain")
    summary: dict[str, Any] = {"demonstrations": len(training), "samples": len(data)}
    if held_out:
        summary |= measure(RobotExamples(pretrained, held_out, config))
        logger.info("%s: %s", run.folder, summary)
    save_pretrained(pretrained, run.folder / MODEL)
    run.finish(summary)
    return run.folder


def read_all(config: PosttrainConfig) -> tuple[list[RobotEpisode], list[RobotEpisode]]:
    """(training, held-out) demonstrations of every file."""
    training, held_out = [], []
    for name, episodes in read_tasks(config.demos, config.wrist):
        if len(episodes) <= config.held_out:
            raise UserError(
                f"{name} has {len(episodes)} demonstrations, {config.held_out} of them held out: "
                "lower --held_out or make more"
            )
        cut = len(episodes) - config.held_out
        training += episodes[:cut][: config.max_demos]
        held_out += episodes[cut:]
    return training, held_out


def read_tasks(demos: Path, wrist: bool) -> Iterator[tuple[str, list[RobotEpisode]]]:
    """(name, episodes) of every task: of LIBERO's files, or of a LeRobot data set by instruction."""
    if is_lerobot(demos):
        tasks: dict[str, list[RobotEpisode]] = {}
        for episode in read_lerobot(demos, wrist):
            tasks.setdefault(episode.instruction, []).append(episode)
        yield from tasks.items()
        return
    files = sorted(demos.glob("*.hdf5")) if demos.is_dir() else [demos]
    if not files:
        raise UserError(
            f"neither *.hdf5 nor a LeRobot data set in {demos}: make demonstrations with "
            "`invact libero demos`"
        )
    for path in files:
        yield str(path), read_demos(path, wrist=wrist)


def dataset_statistics(episodes: list[RobotEpisode]) -> dict[str, Any]:
    """The published layout of one data set's statistics."""
    actions = np.concatenate([e.actions for e in episodes])
    states = np.concatenate([e.state for e in episodes])
    return {
        "action": ActionStats.of(
            actions, normalization_mask(actions.shape[1], gripper=True)
        ).to_json(),
        "proprio": ActionStats.of(states, [True] * STATE_SIZE).to_json(),
        "num_transitions": len(actions),
        "num_trajectories": len(episodes),
    }


def as_policy(
    pretrained: Pretrained, config: PosttrainConfig, statistics: dict[str, Any]
) -> Pretrained:
    """The same weights with a policy's inputs, outputs and statistics.

    What a state token adds is freshly initialised; everything else must be in the checkpoint.
    """
    old = pretrained.config
    own = replace(
        old.invact,
        chunk=config.chunk,
        cameras=("agentview", "wrist") if config.wrist else ("agentview",),
        turns=(),  # demonstrations are read upright, with the gripper 1 open
        gripper_open=1,
        proprio_dim=STATE_SIZE if config.proprio else 0,
        constrain_actions=True,
    )
    model = build_model(
        replace(old, invact=own, norm_stats={config.dataset: statistics}), config.seed
    )
    weights = {**model.state_dict(), **pretrained.model.state_dict()}
    weights = {name: weights[name] for name in model.state_dict()}
    model.load_state_dict(weights)
    # the centre crop of evaluation belongs to the random crop of training
    processor = replace(pretrained.processor, crop=config.augment)
    return Pretrained(model, pretrained.tokenizer, processor)


class RobotExamples:
    """Training sequences of demonstrations: every step that has a whole chunk ahead of it."""

    def __init__(
        self, pretrained: Pretrained, episodes: list[RobotEpisode], config: PosttrainConfig
    ) -> None:
        self.pretrained, chunk = pretrained, config.chunk
        statistics = pretrained.config.norm_stats[config.dataset]
        tokens = ActionTokens.of(pretrained.config)
        action_stats = ActionStats.from_json(statistics["action"])
        prepare = pretrained.processor.prepare
        self.frames, self.sequences, states = [], [], []
        for episode in tqdm(episodes, "prepare", unit="demo", mininterval=5):
            starts = np.arange(len(episode.actions) - chunk + 1)
            ids = tokens.encode(normalize(episode.actions, action_stats))
            windows = rearrange(ids[starts[:, None] + np.arange(chunk)], "t n a -> t (n a)")
            self.sequences += [
                pretrained.sequences.example(episode.instruction, row) for row in windows
            ]
            views = (
                [episode.agentview] if episode.wrist is None else [episode.agentview, episode.wrist]
            )
            self.frames.append(np.stack([prepare(v[starts]) for v in views], axis=1))
            states.append(episode.state[starts])
        self.frames = np.concatenate(self.frames)
        self.state = None
        if config.proprio:
            stats = ActionStats.from_json(statistics["proprio"])
            self.state = normalize(np.concatenate(states), stats).astype(np.float32)

    def __len__(self) -> int:
        return len(self.sequences)

    def batch(self, rows: np.ndarray, rng: np.random.Generator | None) -> dict[str, Tensor]:
        """The model's keyword arguments for some rows; `rng` augments each view by itself."""
        batch = collate([self.sequences[i] for i in rows], self.pretrained.config.pad_token_id)
        views = self.frames[rows]
        pixel_values = self.pretrained.processor.pixel_values
        pixels = [pixel_values(views[:, i], rng) for i in range(views.shape[1])]
        batch["pixel_values"] = torch.cat(pixels, dim=1)
        if self.state is not None:
            batch["proprio"] = torch.from_numpy(self.state[rows])
        return batch


@torch.no_grad()
def measure(data: RobotExamples, batch_size: int = 64) -> dict[str, float]:
    """Teacher-forced token accuracy and L1 (normalised units) on held-out demonstrations."""
    loss_fn = make_loss(data.pretrained.config)
    data.pretrained.model.eval()
    sums, count = np.zeros(3), 0
    for start in range(0, len(data), batch_size):
        rows = np.arange(start, min(start + batch_size, len(data)))
        loss, metrics = loss_fn(data.pretrained.model, data.batch(rows, None), 0)
        found = (loss, metrics["action_accuracy"], metrics["action_l1"])
        sums += np.array([float(v) for v in found]) * len(rows)
        count += len(rows)
    names = ("held_out_loss", "held_out_accuracy", "held_out_l1")
    return {"held_out_samples": count, **dict(zip(names, (sums / count).tolist(), strict=True))}
