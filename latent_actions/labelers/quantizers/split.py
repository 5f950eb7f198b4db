"""Two quantizers side by side: some codes for the last columns of a vector, the others for the rest."""

from dataclasses import dataclass

import numpy as np

from invact_vla.core.errors import UserError
from latent_actions.labelers.quantizers.base import Arrays, QuantizerConfig
from latent_actions.labelers.quantizers.product import ProductQuantizerConfig
from latent_actions.labelers.quantizers.residual import ResidualQuantizerConfig


@QuantizerConfig.register_subclass("split")
@dataclass(frozen=True, kw_only=True)
class SplitQuantizerConfig(QuantizerConfig):
    """Product quantization of the first columns and residual quantization of the last ones, so that
    few numbers that matter (a displacement beside an embedding) get codes of their own, whatever
    their variance. A residual one, since its codes add up: what a linear map reads is their sum.
    """

    last: int = 3  # columns at the end that are cut apart
    last_positions: int = 2  # codes that they get, at most all but one
    dims: int = 32  # principal axes of the first columns that are kept, as in pq

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.last, self.last_positions) < 1 or self.positions < 2:
            raise ValueError(
                f"last and last_positions must be at least 1 and positions at least 2, got {self.last}, "
                f"{self.last_positions} and {self.positions}"
            )
        self._parts()

    @property
    def _last(self) -> int:
        return min(self.last_positions, self.positions - 1)

    def _parts(self) -> tuple[ProductQuantizerConfig, ResidualQuantizerConfig]:
        first, last = self.positions - self._last, self._last
        return (
            ProductQuantizerConfig(
                positions=first, codes=self.codes, seed=self.seed, dims=self.dims
            ),
            ResidualQuantizerConfig(positions=last, codes=self.codes, seed=self.seed),
        )

    def _fit(self, embeddings: np.ndarray) -> Arrays:
        if embeddings.shape[1] <= self.last:
            raise UserError(
                f"quantizer split cuts off the last {self.last} columns of {embeddings.shape[1]}: "
                "give labeler.vector both"
            )
        first, last = self._parts()
        arrays = first._fit(embeddings[:, : -self.last])
        ends = last._fit(embeddings[:, -self.last :])
        return {
            **arrays,
            "mean": np.concatenate([arrays["mean"], ends["mean"]]),
            "last_centers": ends["centers"],
        }

    def _encode(self, arrays: Arrays, embeddings: np.ndarray) -> np.ndarray:
        cut = -self.last
        values = embeddings[:, :cut], embeddings[:, cut:]
        parts = zip(self._parts(), self._halves(arrays), values, strict=True)
        return np.concatenate([c._encode(state, part) for c, state, part in parts], axis=1)

    def _decode(self, arrays: Arrays, codes: np.ndarray) -> np.ndarray:
        cut = -self._last
        values = codes[:, :cut], codes[:, cut:]
        parts = zip(self._parts(), self._halves(arrays), values, strict=True)
        return np.concatenate([c._decode(state, part) for c, state, part in parts], axis=1)

    def _halves(self, arrays: Arrays) -> tuple[Arrays, Arrays]:
        """The state of each part."""
        mean = arrays["mean"]
        first = {**arrays, "mean": mean[: -self.last]}
        del first["last_centers"]
        return first, {"mean": mean[-self.last :], "centers": arrays["last_centers"]}

    def _shapes(self, arrays: Arrays) -> dict[str, tuple[int, ...]]:
        first, last = self._parts()
        one, two = self._halves(arrays)
        shapes, ends = first._shapes(one), last._shapes(two)
        width = shapes["mean"][0] + self.last
        return {**shapes, "mean": (width,), "last_centers": ends["centers"]}
