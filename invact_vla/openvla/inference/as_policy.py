"""A checkpoint with the inputs, outputs and statistics of a policy.

What a state token or a head adds is freshly initialized; everything else stays the tensor it was.
"""

from dataclasses import replace
from typing import Any

import torch

from invact_vla.openvla.checkpoints.checkpoint import VLACheckpoint
from invact_vla.openvla.head_configs import HeadConfig
from invact_vla.openvla.model import build_slots
from invact_vla.openvla.projector import Projector


def as_policy(
    pretrained: VLACheckpoint,
    *,
    head: HeadConfig,
    chunk: int,
    cameras: tuple[str, ...],
    proprio_dim: int,
    action_dim: int,
    norm_stats: dict[str, Any],
    crop: bool,
    seed: int,
) -> VLACheckpoint:
    """Change the model in place, and return it with its processor.

    Parts that the checkpoint has already, in the same shapes, are kept: an OFT policy goes on.
    crop: whether evaluation crops the center, as training crops at random. Frames of demonstrations
    come upright and with the gripper 1 open, so any other convention of the checkpoint ends here.
    """
    old, model = pretrained.config, pretrained.model
    own = replace(
        old.invact,
        head=head,
        chunk=chunk,
        cameras=cameras,
        image_rotation=(),
        gripper_open=1,
        proprio_dim=proprio_dim,
        action_dim=action_dim,
        constrain_actions=True,
    )
    config = replace(old, invact=own, norm_stats=norm_stats)
    width = config.text_config.hidden_size
    like = next(model.language_model.parameters())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        projector = Projector(proprio_dim, width) if proprio_dim else None
        action_head, slots = build_slots(config, width)
    model.proprio_projector = _kept(model.proprio_projector, projector, like)
    model.action_head = _kept(model.action_head, action_head, like)
    if slots is None or model.action_slots is None or slots.shape != model.action_slots.shape:
        model.action_slots = None
        if slots is not None:
            model.action_slots = torch.nn.Parameter(slots.detach().to(like.device))
    model.config = config
    return replace(pretrained, processor=replace(pretrained.processor, crop=crop))


def _kept(old: Any, new: Any, like: torch.Tensor) -> Any:
    """The module of the checkpoint if it has the shapes of the new one, else the new one."""
    if new is None:
        return None
    shapes = {n: p.shape for n, p in new.state_dict().items()}
    if old is not None and {n: p.shape for n, p in old.state_dict().items()} == shapes:
        return old
    return new.to(device=like.device, dtype=like.dtype)
