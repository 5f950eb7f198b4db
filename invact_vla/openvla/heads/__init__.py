"""Action heads behind one interface: how a chunk of actions is taught to, and read from, an OpenVLA.

A new head: a config in `head_configs.py`, and a file here with the name of its type that ends with
`HEAD = TheClass`.
"""

import importlib

from invact_vla.openvla.checkpoints.checkpoint import VLACheckpoint
from invact_vla.openvla.head_configs import HeadConfig
from invact_vla.openvla.heads.head import ActionHead


def action_head(pretrained: VLACheckpoint) -> ActionHead:
    """The head that a checkpoint's config names."""
    name = HeadConfig.get_choice_name(type(pretrained.config.invact.head))
    module = importlib.import_module(f"{__name__}.{name}")
    return module.HEAD(pretrained.config, pretrained.sequences)
