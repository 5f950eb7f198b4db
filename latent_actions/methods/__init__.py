"""The labellers, one file each: importing this package registers them."""

from latent_actions.method import Labeller, LabellerConfig
from latent_actions.methods.controls import RandomConfig, ShuffledConfig
from latent_actions.methods.invact import InvActConfig
from latent_actions.methods.lapa import LapaConfig

__all__ = [
    "InvActConfig",
    "Labeller",
    "LabellerConfig",
    "LapaConfig",
    "RandomConfig",
    "ShuffledConfig",
]
