"""The labelers, one file each: importing this package registers them."""

from latent_actions.labelers.controls import RandomConfig, ShuffledConfig
from latent_actions.labelers.cross_view import MvpLamConfig, VilaLabelerConfig
from latent_actions.labelers.difference import FeatureDifferenceConfig
from latent_actions.labelers.invact import InvActConfig
from latent_actions.labelers.labeler import Labeler, LabelerConfig
from latent_actions.labelers.lapa import LapaConfig
from latent_actions.labelers.lapo import LapoConfig
from latent_actions.labelers.true_actions import TrueActionsConfig, VptConfig
from latent_actions.labelers.univla.labeler import UnivlaLabelerConfig

__all__ = [
    "FeatureDifferenceConfig",
    "InvActConfig",
    "Labeler",
    "LabelerConfig",
    "LapaConfig",
    "LapoConfig",
    "MvpLamConfig",
    "RandomConfig",
    "ShuffledConfig",
    "TrueActionsConfig",
    "UnivlaLabelerConfig",
    "VilaLabelerConfig",
    "VptConfig",
]
