"""Actions in [-1, 1] <-> the last ids of the vocabulary.

Source: OpenVLA (arxiv.org/abs/2406.09246, §3.2), after RT-2 (arxiv.org/abs/2307.15818). `bins`
edges make bins - 1 intervals, so the last two ids decode to the same center.
"""

from dataclasses import dataclass, field

import numpy as np

from invact_vla.openvla.config import OpenVLAConfig


@dataclass(frozen=True)
class ActionTokens:
    """The scheme for one vocabulary. vocab_size: ids with a meaning, padding rows not counted."""

    vocab_size: int
    bins: int = 256
    edges: np.ndarray = field(init=False, repr=False, compare=False)
    centers: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.bins < 2:
            raise ValueError(f"at least 2 bins are needed, got {self.bins}")
        # float64: with float32 edges about half of the values on an edge fall into the wrong bin
        edges = np.linspace(-1.0, 1.0, self.bins)
        object.__setattr__(self, "edges", edges)
        object.__setattr__(self, "centers", (edges[:-1] + edges[1:]) / 2.0)

    @classmethod
    def of(cls, config: OpenVLAConfig) -> "ActionTokens":
        """The scheme of a model."""
        return cls(config.vocab_size, config.n_action_bins)

    @property
    def first_id(self) -> int:
        """Smallest action id (published: 31744); the largest is vocab_size - 1."""
        return self.vocab_size - self.bins

    def encode(self, actions: np.ndarray) -> np.ndarray:
        """(..., A) normalized actions -> (..., A) int64 ids; values outside [-1, 1] are clipped."""
        if self.first_id < 0:
            raise ValueError(f"{self.bins} action ids do not fit a vocabulary of {self.vocab_size}")
        clipped = np.clip(np.asarray(actions, np.float64), -1.0, 1.0)
        return self.vocab_size - np.digitize(clipped, self.edges).astype(np.int64)

    def decode(self, ids: np.ndarray) -> np.ndarray:
        """(..., A) ids -> (..., A) float64 bin centers; ids of no action go to the nearer end."""
        index = np.clip(self.vocab_size - np.asarray(ids, np.int64) - 1, 0, self.bins - 2)
        return self.centers[index]
