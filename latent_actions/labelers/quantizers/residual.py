"""Coarse to fine: each code refines what the codes before it said."""

from dataclasses import dataclass

import numpy as np

from latent_actions.labelers.quantizers.base import Arrays, QuantizerConfig
from latent_actions.labelers.quantizers.kmeans import kmeans, nearest


@QuantizerConfig.register_subclass("rvq")
@dataclass(frozen=True, kw_only=True)
class ResidualQuantizerConfig(QuantizerConfig):
    """Residual quantization: each position quantizes what those before left (Chen et al. 2010).

    The first code is coarse and the last is fine, so it has a natural order for a language model.
    """

    def _fit(self, embeddings: np.ndarray) -> Arrays:
        mean = embeddings.mean(axis=0)
        rest, rng, levels = embeddings - mean, np.random.default_rng([self.seed, 1]), []
        for _ in range(self.positions):
            levels.append(kmeans(rest, self.codes, rng))
            rest = rest - levels[-1][nearest(rest, levels[-1])]
        return {"mean": mean, "centers": np.stack(levels)}

    def _encode(self, arrays: Arrays, embeddings: np.ndarray) -> np.ndarray:
        rest, codes = embeddings - arrays["mean"], []
        for centers in arrays["centers"]:
            codes.append(nearest(rest, centers))
            rest = rest - centers[codes[-1]]
        return np.stack(codes, axis=1)

    def _decode(self, arrays: Arrays, codes: np.ndarray) -> np.ndarray:
        return arrays["mean"] + sum(c[codes[:, k]] for k, c in enumerate(arrays["centers"]))

    def _shapes(self, arrays: Arrays) -> dict[str, tuple[int, ...]]:
        (width,) = arrays["mean"].shape
        return {"mean": (width,), "centers": (self.positions, self.codes, width)}


@QuantizerConfig.register_subclass("kmeans")
@dataclass(frozen=True, kw_only=True)
class TreeQuantizerConfig(QuantizerConfig):
    """Hierarchical k-means: the cells of a code are clustered again for the next (Nister and Stewenius
    2006), so that a label is one of C^K cells. Cells with too few points are not cut further.
    """

    def _fit(self, embeddings: np.ndarray) -> Arrays:
        mean = embeddings.mean(axis=0)
        rng = np.random.default_rng([self.seed, 2])
        width, cells = embeddings.shape[1], [embeddings - mean]
        centers, parents = [], np.zeros((1, width))
        for _ in range(self.positions):
            level = [self._cut(c, p, rng) for c, p in zip(cells, parents, strict=True)]
            codes = [nearest(cell, found) for cell, found in zip(cells, level, strict=True)]
            cells = [
                cell[code == k]
                for cell, code in zip(cells, codes, strict=True)
                for k in range(self.codes)
            ]
            parents = np.concatenate(level)
            centers.append(parents)
        return {"mean": mean, "centers": np.concatenate(centers)}

    def _cut(self, points: np.ndarray, parent: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Centers (C, D) of one cell; where it has fewer points, they and the cell's own center."""
        if len(np.unique(points, axis=0)) >= self.codes:
            return kmeans(points, self.codes, rng)
        few = np.unique(points, axis=0).reshape(-1, len(parent))
        return np.concatenate([few, np.repeat(parent[None], self.codes - len(few), axis=0)])

    def _encode(self, arrays: Arrays, embeddings: np.ndarray) -> np.ndarray:
        values, cell, codes = embeddings - arrays["mean"], np.zeros(len(embeddings), np.int64), []
        for level in self._levels(arrays["centers"]):
            centers = level.reshape(-1, self.codes, values.shape[1])[cell]
            codes.append(((values[:, None] - centers) ** 2).sum(axis=2).argmin(axis=1))
            cell = cell * self.codes + codes[-1]
        return np.stack(codes, axis=1)

    def _decode(self, arrays: Arrays, codes: np.ndarray) -> np.ndarray:
        cell = codes @ (self.codes ** np.arange(self.positions)[::-1])
        return arrays["mean"] + self._levels(arrays["centers"])[-1][cell]

    def _levels(self, centers: np.ndarray) -> list[np.ndarray]:
        sizes = self.codes ** np.arange(1, self.positions + 1)
        return np.split(centers, np.cumsum(sizes)[:-1])

    def _shapes(self, arrays: Arrays) -> dict[str, tuple[int, ...]]:
        (width,) = arrays["mean"].shape
        rows = sum(self.codes**k for k in range(1, self.positions + 1))
        return {"mean": (width,), "centers": (rows, width)}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.codes**self.positions > MOST_CELLS:
            raise ValueError(
                f"kmeans keeps every cell: codes ** positions must be at most {MOST_CELLS}"
            )


MOST_CELLS = 1 << 20
