"""Video sources, one file each: importing this package registers them."""

from latent_actions.video.source import Dropped, SourceConfig
from latent_actions.video.sources.egoexo4d import EgoExo4dSource, read_clips
from latent_actions.video.sources.folder import FolderSource
from latent_actions.video.sources.ssv2 import Ssv2Source

__all__ = [
    "Dropped",
    "EgoExo4dSource",
    "FolderSource",
    "SourceConfig",
    "Ssv2Source",
    "read_clips",
]
