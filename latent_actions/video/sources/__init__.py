"""Video sources, one file each: importing this package registers them."""

from latent_actions.video.skip_report import SkipReport
from latent_actions.video.source import SourceConfig
from latent_actions.video.sources.demonstrations import DemonstrationsSource
from latent_actions.video.sources.egoexo4d import EgoExo4dKeystepSource, EgoExo4dSource
from latent_actions.video.sources.folder import FolderSource
from latent_actions.video.sources.ntu import NtuSource
from latent_actions.video.sources.phyworld import PhyWorldSource
from latent_actions.video.sources.ssv2 import Ssv2Source

__all__ = [
    "DemonstrationsSource",
    "EgoExo4dKeystepSource",
    "EgoExo4dSource",
    "FolderSource",
    "NtuSource",
    "PhyWorldSource",
    "SkipReport",
    "SourceConfig",
    "Ssv2Source",
]
