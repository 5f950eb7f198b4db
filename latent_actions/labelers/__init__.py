"""The labelers, one file each: importing this package registers them."""

from latent_actions.labelers.controls import RandomConfig, ShuffledConfig
from latent_actions.labelers.invact import InvActConfig
from latent_actions.labelers.labeler import Labeler, LabelerConfig
from latent_actions.labelers.lapa import LapaConfig

__all__ = [
    "InvActConfig",
    "Labeler",
    "LabelerConfig",
    "LapaConfig",
    "RandomConfig",
    "ShuffledConfig",
]
