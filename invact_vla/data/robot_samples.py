"""Training samples of demonstrations: every step of every chosen episode that has a whole chunk ahead.

Numbers are held in memory (some 60 bytes per step), frames are read from the frame cache.

Axis letters: N samples, T steps, B batch, n actions of a chunk, A numbers of an action, S of the state.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from invact_vla.data.action_stats import ActionStats, normalize
from invact_vla.data.dataset import RobotDataset
from invact_vla.data.frame_cache import FrameReader


@dataclass(frozen=True)
class RobotBatch:
    """B samples. frames: uint8 (B, V, S, S, 3); actions: float32 (B, n, A) normalized; state: float32
    (B, S) normalized, or None; instructions: B texts."""

    frames: np.ndarray
    actions: np.ndarray
    state: np.ndarray | None
    instructions: list[str]


class RobotSamples:
    """Samples of some episodes of a data set, normalized by its statistics."""

    def __init__(
        self,
        dataset: RobotDataset,
        episodes: Sequence[int],
        frames: FrameReader,
        actions: ActionStats,
        state: ActionStats | None,
        chunk: int,
    ) -> None:
        self._frames, self._chunk = frames, chunk
        self.episodes = np.asarray(episodes)
        numbers = [dataset.numbers(i) for i in episodes]
        lengths = np.array([len(n.actions) for n in numbers])
        self._actions = np.concatenate([normalize(n.actions, actions) for n in numbers], dtype="f4")
        self._state = None
        if state is not None:
            states = [n.state for n in numbers if n.state is not None]
            self._state = np.concatenate([normalize(s, state) for s in states], dtype="f4")
        self._instructions = [dataset.episodes[i].instruction for i in episodes]
        self._first = np.concatenate([[0], np.cumsum(lengths)[:-1]])  # row of each episode's step 0
        starts = np.maximum(lengths - chunk + 1, 0)
        self._episode = np.repeat(np.arange(len(episodes)), starts)  # of each sample
        ends = np.cumsum(starts)
        self._step = np.arange(ends[-1]) - np.repeat(ends - starts, starts)

    def __len__(self) -> int:
        return len(self._step)

    def batch(self, rows: np.ndarray, frames_of: np.ndarray | None = None) -> RobotBatch:
        """The samples `rows`; frames_of: rows whose pictures are taken instead (a control)."""
        episode, step = self._episode[rows], self._step[rows]
        at = self._first[episode] + step
        seen = rows if frames_of is None else frames_of
        return RobotBatch(
            frames=self._frames(self.episodes[self._episode[seen]], self._step[seen]),
            actions=self._actions[at[:, None] + np.arange(self._chunk)],
            state=None if self._state is None else self._state[at],
            instructions=[self._instructions[i] for i in episode],
        )

    def other_episode(self, rows: np.ndarray) -> np.ndarray:
        """For each sample one at about the same step of the next episode (of any task)."""
        count = len(self.episodes)
        other = (self._episode[rows] + 1) % count
        sizes = np.bincount(self._episode, minlength=count)
        first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        return first[other] + np.minimum(self._step[rows], sizes[other] - 1)
