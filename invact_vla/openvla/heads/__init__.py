"""Action heads behind one interface: how a chunk of actions is taught to, and read from, an OpenVLA.

A new head: a config in `head_configs.py`, a class here, and its line in `_HEADS`.
"""

from invact_vla.openvla.checkpoints.checkpoint import VLACheckpoint
from invact_vla.openvla.head_configs import (
    HeadConfig,
    OftHeadConfig,
    TextHeadConfig,
    TokensHeadConfig,
)
from invact_vla.openvla.heads.head import ActionHead
from invact_vla.openvla.heads.oft import OftHead
from invact_vla.openvla.heads.text import TextHead
from invact_vla.openvla.heads.tokens import TokensHead

_HEADS: dict[type[HeadConfig], type[ActionHead]] = {
    TokensHeadConfig: TokensHead,
    OftHeadConfig: OftHead,
    TextHeadConfig: TextHead,
}


def action_head(pretrained: VLACheckpoint) -> ActionHead:
    """The head that a checkpoint's config names."""
    return _HEADS[type(pretrained.config.invact.head)](pretrained.config, pretrained.sequences)
