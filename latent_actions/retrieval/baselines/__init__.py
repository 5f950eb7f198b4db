"""Encoders of other people behind one `embed`: importing this package registers them.

`load_baseline(config)` gives a function from clips to vectors; docs/baselines.md says what each one
is, where its weights are, and how it was tested.
"""

from latent_actions.retrieval.baselines.baseline import (
    BaselineConfig,
    Embed,
    load_baseline,
    name_of,
    weights_of,
)
from latent_actions.retrieval.baselines.dino import FlowFeatConfig, LiftConfig
from latent_actions.retrieval.baselines.ego_exo import Ae2Config, ByovConfig
from latent_actions.retrieval.baselines.hub import (
    ClipConfig,
    Dinov3Config,
    TimesformerBaselineConfig,
    Vjepa2BaselineConfig,
)
from latent_actions.retrieval.baselines.ours import LapaBaselineConfig, TrainedConfig
from latent_actions.retrieval.baselines.suml import SumlConfig
from latent_actions.retrieval.baselines.video_text import EgoVlpConfig, EgoVlpV2Config, LaVilaConfig
from latent_actions.retrieval.baselines.vila import VilaConfig

__all__ = [
    "Ae2Config", "BaselineConfig", "ByovConfig", "ClipConfig", "Dinov3Config", "EgoVlpConfig",
    "EgoVlpV2Config", "Embed", "FlowFeatConfig", "LaVilaConfig", "LapaBaselineConfig", "LiftConfig",
    "SumlConfig", "TimesformerBaselineConfig", "TrainedConfig", "VilaConfig",
    "Vjepa2BaselineConfig", "load_baseline", "name_of", "weights_of",
]  # fmt: skip
