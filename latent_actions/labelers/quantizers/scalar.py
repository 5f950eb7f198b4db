"""Scalar quantization: each code is one axis, cut into levels."""

from dataclasses import dataclass

import numpy as np

from invact_vla.core.errors import UserError
from latent_actions.labelers.quantizers.base import Arrays, QuantizerConfig, principal_axes


@QuantizerConfig.register_subclass("pca_quantile")
@dataclass(frozen=True, kw_only=True)
class PCAQuantileQuantizerConfig(QuantizerConfig):
    """Scalar quantization: the first K principal axes, C levels each.

    Bounds are equally frequent quantiles of the training data, so no code can die; neighbors in code are
    neighbors in space.
    """

    def _fit(self, embeddings: np.ndarray) -> Arrays:
        mean, axes, _ = principal_axes(embeddings)
        if len(axes) < self.positions:
            raise UserError(f"{self.positions} axes needed, the embeddings have {len(axes)}")
        axes = axes[: self.positions]
        projected = (embeddings - mean) @ axes.T
        edges = np.quantile(projected, np.arange(1, self.codes) / self.codes, axis=0).T
        middles = np.quantile(projected, (np.arange(self.codes) + 0.5) / self.codes, axis=0).T
        return {"mean": mean, "axes": axes, "edges": edges, "middles": middles}

    def _encode(self, arrays: Arrays, embeddings: np.ndarray) -> np.ndarray:
        projected = (embeddings - arrays["mean"]) @ arrays["axes"].T
        codes = [
            np.searchsorted(e, projected[:, k], "right") for k, e in enumerate(arrays["edges"])
        ]
        return np.stack(codes, axis=1).astype(np.int64)

    def _decode(self, arrays: Arrays, codes: np.ndarray) -> np.ndarray:
        values = np.stack([m[codes[:, k]] for k, m in enumerate(arrays["middles"])], axis=1)
        return arrays["mean"] + values @ arrays["axes"]

    def _shapes(self, arrays: Arrays) -> dict[str, tuple[int, ...]]:
        (width,), k, c = arrays["mean"].shape, self.positions, self.codes
        return {"mean": (width,), "axes": (k, width), "edges": (k, c - 1), "middles": (k, c)}


@QuantizerConfig.register_subclass("fsq")
@dataclass(frozen=True, kw_only=True)
class FiniteScalarQuantizerConfig(QuantizerConfig):
    """Finite scalar quantization (arxiv.org/abs/2309.15505) of the first K principal axes: each is
    scaled to unit variance, bounded by tanh, and rounded to C equally wide levels.
    """

    def _fit(self, embeddings: np.ndarray) -> Arrays:
        mean, axes, variance = principal_axes(embeddings)
        if len(axes) < self.positions:
            raise UserError(f"{self.positions} axes needed, the embeddings have {len(axes)}")
        scale = np.sqrt(np.maximum(variance[: self.positions], 1e-12))
        return {"mean": mean, "axes": axes[: self.positions], "scale": scale}

    def _encode(self, arrays: Arrays, embeddings: np.ndarray) -> np.ndarray:
        values = (embeddings - arrays["mean"]) @ arrays["axes"].T / arrays["scale"]
        levels = np.floor((np.tanh(values) + 1) / 2 * self.codes)
        return np.clip(levels, 0, self.codes - 1).astype(np.int64)

    def _decode(self, arrays: Arrays, codes: np.ndarray) -> np.ndarray:
        values = np.arctanh((codes + 0.5) / self.codes * 2 - 1) * arrays["scale"]
        return arrays["mean"] + values @ arrays["axes"]

    def _shapes(self, arrays: Arrays) -> dict[str, tuple[int, ...]]:
        (width,), k = arrays["mean"].shape, self.positions
        return {"mean": (width,), "axes": (k, width), "scale": (k,)}
