"""Product quantization: independent codebooks in sub-spaces, plain or with evenly used codes."""

from dataclasses import dataclass

import numpy as np

from invact_vla.core.errors import UserError
from latent_actions.labelers.quantizers.base import Arrays, QuantizerConfig, principal_axes
from latent_actions.labelers.quantizers.kmeans import (
    balanced_kmeans,
    kmeans,
    nearest,
    squared_distances,
)


@QuantizerConfig.register_subclass("pq")
@dataclass(frozen=True, kw_only=True)
class ProductQuantizerConfig(QuantizerConfig):
    """Product quantization: rotate, cut into K sub-spaces, k-means in each (Jegou et al. 2011).

    Principal axes are dealt to the sub-spaces so that each gets an equal share of the variance
    (eigenvalue allocation of optimized PQ, Ge et al. 2013); otherwise the last carry only noise.
    """

    dims: int = 32  # principal axes kept, at most D; rounded down to a multiple of `positions`

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dims < self.positions:
            raise ValueError(f"dims must be at least positions {self.positions}, got {self.dims}")

    def _fit(self, embeddings: np.ndarray) -> Arrays:
        mean, axes, variance = principal_axes(embeddings)
        width = min(self.dims, len(axes)) // self.positions
        if width < 1:
            raise UserError(
                f"{self.positions} sub-spaces need as many dimensions, there are {len(axes)}"
            )
        parts = allocate(variance[: width * self.positions], self.positions)
        rotation = np.concatenate([axes[part] for part in parts])
        projected = _split((embeddings - mean) @ rotation.T, self.positions)
        rng = np.random.default_rng([self.seed, 0])
        centers = np.stack([kmeans(part, self.codes, rng) for part in projected])
        return {"mean": mean, "rotation": rotation, "centers": centers}

    def _encode(self, arrays: Arrays, embeddings: np.ndarray) -> np.ndarray:
        parts = _split((embeddings - arrays["mean"]) @ arrays["rotation"].T, self.positions)
        return np.stack(self._nearest(arrays, parts), axis=1)

    def _nearest(self, arrays: Arrays, parts: list[np.ndarray]) -> list[np.ndarray]:
        return [nearest(p, c) for p, c in zip(parts, arrays["centers"], strict=True)]

    def _decode(self, arrays: Arrays, codes: np.ndarray) -> np.ndarray:
        parts = [c[codes[:, k]] for k, c in enumerate(arrays["centers"])]
        return arrays["mean"] + np.concatenate(parts, axis=1) @ arrays["rotation"]

    def _shapes(self, arrays: Arrays) -> dict[str, tuple[int, ...]]:
        rows, width = arrays["rotation"].shape
        centers = (self.positions, self.codes, rows // self.positions)
        rotation = (centers[0] * centers[2], width)
        return {"mean": (width,), "rotation": rotation, "centers": centers}


@QuantizerConfig.register_subclass("sinkhorn")
@dataclass(frozen=True, kw_only=True)
class BalancedQuantizerConfig(ProductQuantizerConfig):
    """Product quantization whose codes get nearly equal parts of the training data: k-means with
    assignments by optimal transport (Sinkhorn; Asano et al., arxiv.org/abs/1911.05371).
    """

    def _fit(self, embeddings: np.ndarray) -> Arrays:
        arrays = super()._fit(embeddings)
        parts = _split((embeddings - arrays["mean"]) @ arrays["rotation"].T, self.positions)
        rng = np.random.default_rng([self.seed, 3])
        found = [balanced_kmeans(part, self.codes, rng) for part in parts]
        centers, offsets = (np.stack(arrays) for arrays in zip(*found, strict=True))
        return {**arrays, "centers": centers, "offsets": offsets}

    def _nearest(self, arrays: Arrays, parts: list[np.ndarray]) -> list[np.ndarray]:
        centers, offsets = arrays["centers"], arrays["offsets"]
        return [
            (squared_distances(part, centers[k]) + offsets[k]).argmin(axis=1)
            for k, part in enumerate(parts)
        ]

    def _shapes(self, arrays: Arrays) -> dict[str, tuple[int, ...]]:
        return {**super()._shapes(arrays), "offsets": (self.positions, self.codes)}


def allocate(variance: np.ndarray, parts: int) -> list[list[int]]:
    """Deal axes of falling variance (R,) to `parts` equal groups of nearly equal total variance."""
    capacity = len(variance) // parts
    groups: list[list[int]] = [[] for _ in range(parts)]
    totals = np.zeros(parts)
    for axis, value in enumerate(variance):
        open_groups = [g for g in range(parts) if len(groups[g]) < capacity]
        group = min(open_groups, key=lambda g: (totals[g], g))
        groups[group].append(axis)
        totals[group] += value
    return groups


def _split(values: np.ndarray, parts: int) -> list[np.ndarray]:
    return np.split(values, parts, axis=1)
