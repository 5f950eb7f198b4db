"""Demonstrations as training examples: every step of every chosen episode that has a whole chunk ahead.

Pictures, instruction and state in, a chunk of actions out. Numbers are held in memory (some 60 bytes per
step), frames are read from the frame cache.

Axis letters: T steps, B batch, V pictures of an example, S side of the model's images (px).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invact_vla.data.action_stats import ActionStats, Bounds, normalize
from invact_vla.data.dataset import RobotDataset
from invact_vla.openvla.checkpoints.checkpoint import VLACheckpoint
from invact_vla.openvla.heads import ActionHead
from invact_vla.openvla.model import OpenVLA
from invact_vla.recipes.train import Examples, mean_metrics

ReadFrames = Callable[[np.ndarray, np.ndarray], np.ndarray]  # episodes, steps -> (B, V, S, S, 3)


class RobotExamples(Examples):
    """Examples of some episodes of a data set for a policy, normalized by its statistics."""

    def __init__(
        self,
        policy: VLACheckpoint,
        head: ActionHead,
        dataset: RobotDataset,
        episodes: Sequence[int],
        frames: ReadFrames,
    ) -> None:
        own, (statistics,) = policy.config.invact, policy.config.norm_stats.values()
        self._head, self._processor, self._frames = head, policy.processor, frames
        self.images, self._chunk = len(own.cameras), own.chunk
        self.episodes = np.asarray(episodes)
        numbers = [dataset.numbers(i) for i in episodes]
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
        starts = np.maximum(lengths - self._chunk + 1, 0)
        self._episode = np.repeat(np.arange(len(episodes)), starts)  # of each example
        ends = np.cumsum(starts)
        self._step = np.arange(ends[-1]) - np.repeat(ends - starts, starts)

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
        count = len(self.episodes)
        other = (self._episode[rows] + 1) % count
        sizes = np.bincount(self._episode, minlength=count)
        first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        return first[other] + np.minimum(self._step[rows], sizes[other] - 1)

    def evaluate(self, head: ActionHead, model: OpenVLA) -> dict[str, float]:
        """Loss and metrics, and the same with another episode's pictures: a policy that looks gets
        worse with these."""
        found: dict[str, float] = {"held_out_samples": len(self)}
        for suffix, batch_of in (
            ("", self.batch),
            ("_other_picture", lambda rows: self.batch(rows, seen=self.other_episode(rows))),
        ):
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
