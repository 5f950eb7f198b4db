"""Quantizers that are fitted to embeddings; importing this package registers all."""

from latent_actions.labelers.quantizers.base import (
    Quantizer,
    QuantizerConfig,
    load_quantizer,
    principal_axes,
    save_quantizer,
)
from latent_actions.labelers.quantizers.product import (
    BalancedQuantizerConfig,
    ProductQuantizerConfig,
    allocate,
)
from latent_actions.labelers.quantizers.residual import ResidualQuantizerConfig, TreeQuantizerConfig
from latent_actions.labelers.quantizers.scalar import (
    FiniteScalarQuantizerConfig,
    PCAQuantileQuantizerConfig,
)
from latent_actions.labelers.quantizers.split import SplitQuantizerConfig

__all__ = [
    "BalancedQuantizerConfig",
    "FiniteScalarQuantizerConfig",
    "PCAQuantileQuantizerConfig",
    "ProductQuantizerConfig",
    "Quantizer",
    "QuantizerConfig",
    "ResidualQuantizerConfig",
    "SplitQuantizerConfig",
    "TreeQuantizerConfig",
    "allocate",
    "load_quantizer",
    "principal_axes",
    "save_quantizer",
]
