"""A checkpoint folder as a policy: observation in, chunk of actions out; and how one is made.

Source of the post-processing: OpenVLA's LIBERO evaluation (github.com/openvla/openvla,
experiments/robot/libero). The folder is all that is needed.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from invact_vla.core.errors import UserError
from invact_vla.core.schema import ActionChunk, Observation
from invact_vla.data.action_stats import ActionStats, normalize, unnormalize
from invact_vla.data.conventions import rotate, to_libero_action
from invact_vla.openvla.attention import AttentionImpl
from invact_vla.openvla.checkpoints.checkpoint import VLACheckpoint, load_pretrained
from invact_vla.openvla.config import HeadConfig
from invact_vla.openvla.heads import action_head
from invact_vla.openvla.inference.int8 import Quantize, quantize_model
from invact_vla.openvla.modules import Projector, build_slots
from invact_vla.training.device import Device, resolve_device, resolve_dtype
from invact_vla.untrusted.torch_files import check_finite


class OpenVLAPolicy:
    """Greedy decoding. needs: cameras it reads; chunk: actions per call."""

    def __init__(self, pretrained: VLACheckpoint, key: str | None = None) -> None:
        config, own = pretrained.config, pretrained.config.invact
        self.pretrained, self.sequences = pretrained, pretrained.sequences
        self.head = action_head(pretrained)
        self.device = pretrained.model.device
        self.needs, self.chunk = tuple(own.cameras), own.chunk
        self.image_rotation = own.image_rotation or ("none",) * len(self.needs)
        self.gripper_open = own.gripper_open
        self.key, statistics = select_norm_stats(config.norm_stats, key)
        self.actions = _statistics(statistics, "action", own.action_dim, self.key)
        self.proprio = None
        if own.proprio_dim:
            self.proprio = _statistics(statistics, "proprio", own.proprio_dim, self.key)

    @classmethod
    def from_pretrained(
        cls, folder: Path, key: str | None = None, attention: AttentionImpl = "auto",
        device: Device = "auto", dtype: str | torch.dtype = "auto", quantize: Quantize = "none",
    ) -> "OpenVLAPolicy":  # fmt: skip
        """Load a folder. key: which statistics, needed only when the folder has several. device and
        dtype: as in training/device.py. quantize: "int8" for the language model's weights (int8.py).
        Raises UserError for weights that are no numbers."""
        device = resolve_device(device)
        pretrained = load_pretrained(folder, attention, resolve_dtype(dtype, device), device)
        check_finite(pretrained.model.state_dict(), folder)
        quantize_model(pretrained.model, quantize)
        return cls(pretrained, key)

    def reset(self, seed: int) -> None:
        """Nothing is remembered between calls, and decoding is greedy."""

    def act(self, observation: Observation) -> ActionChunk:
        """The next `chunk` actions."""
        return self.act_batch([observation])[0]

    def act_batch(self, observations: list[Observation]) -> list[ActionChunk]:
        """One chunk per observation, decoded together."""
        texts, pixels = [o.instruction for o in observations], self.pixel_values(observations)
        with torch.inference_mode():
            chunks = self.head.decode(
                self.pretrained.model, texts, pixels, self.state(observations)
            )
        actions = unnormalize(chunks, self.actions)
        return [ActionChunk(values) for values in to_libero_action(actions, self.gripper_open)]

    def pixel_values(self, observations: list[Observation]) -> Tensor:
        """(B, cameras * C, S, S), cameras in the model's order."""
        views = []
        for camera, how in zip(self.needs, self.image_rotation, strict=True):
            frames = [getattr(o, camera) for o in observations]
            if any(f is None for f in frames):
                raise UserError(f"this policy reads the {camera} camera, which is not rendered")
            processed = [self.pretrained.processor(rotate(f[None], how)) for f in frames]
            views.append(torch.cat(processed))
        return torch.cat(views, dim=1).to(self.device)

    def state(self, observations: list[Observation]) -> Tensor | None:
        """(B, S) normalized state, or None for a model without a state token."""
        if self.proprio is None:
            return None
        states = normalize(np.stack([o.state for o in observations]), self.proprio)
        return torch.from_numpy(states.astype(np.float32)).to(self.device)


def select_norm_stats(norm_stats: dict[str, Any], key: str | None) -> tuple[str, dict[str, Any]]:
    """The statistics named `key` (or `key`_no_noops), or the only ones."""
    known = sorted(norm_stats)
    if not known:
        raise UserError(
            "this checkpoint has no action statistics (norm_stats in config.json or "
            "dataset_statistics.json): it was not post-trained on robot actions"
        )
    if key is None and len(known) > 1:
        raise UserError(
            f"this checkpoint has several statistics, {', '.join(known)}: choose, as with "
            f"--policy.statistics {known[0]}"
        )
    key = known[0] if key is None else key
    found = next((k for k in (key, f"{key}_no_noops") if k in norm_stats), None)
    if found is None:
        raise UserError(f"no action statistics {key!r} in this checkpoint: it has {known}")
    if "action" not in norm_stats[found]:
        raise UserError(f"statistics {found!r} lack `action`")
    return found, norm_stats[found]


def _statistics(statistics: dict[str, Any], name: str, size: int, key: str) -> ActionStats:
    """Those of the action or of the state, if they are of as many numbers as the model's."""
    if name not in statistics:
        raise UserError(f"the model reads the robot's state, but statistics {key!r} lack `{name}`")
    stats = ActionStats.from_json(statistics[name])
    if len(stats.q01) != size:
        raise UserError(
            f"statistics {key!r} have {len(stats.q01)} {name} dimensions, the model {size}"
        )
    return stats


def as_policy(
    pretrained: VLACheckpoint, *, head: HeadConfig, chunk: int, cameras: tuple[str, ...],
    proprio_dim: int, action_dim: int, norm_stats: dict[str, Any], crop: bool, seed: int,
) -> VLACheckpoint:  # fmt: skip
    """A checkpoint with the inputs, outputs and statistics of a policy: the model is changed in place,
    and returned with its processor.

    What a state token or a head adds is freshly initialized by the seed; parts that the checkpoint has
    already, in the same shapes, are kept: an OFT policy goes on. crop: whether evaluation crops the
    center, as training crops at random. Frames of demonstrations come upright and with the gripper 1
    open, so any other convention of the checkpoint ends here.
    """
    old, model = pretrained.config, pretrained.model
    own = replace(
        old.invact, head=head, chunk=chunk, cameras=cameras, image_rotation=(), gripper_open=1,
        proprio_dim=proprio_dim, action_dim=action_dim, constrain_actions=True,
    )  # fmt: skip
    config = replace(old, invact=own, norm_stats=norm_stats)
    width, like = config.text_config.hidden_size, next(model.language_model.parameters())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        projector = Projector(proprio_dim, width) if proprio_dim else None
        regression, slots = build_slots(config, width)
    model.proprio_projector = _kept(model.proprio_projector, projector, like)
    model.action_head = _kept(model.action_head, regression, like)
    if slots is None or model.action_slots is None or slots.shape != model.action_slots.shape:
        model.action_slots = None if slots is None else nn.Parameter(slots.detach().to(like.device))
    model.config = config
    return replace(pretrained, processor=replace(pretrained.processor, crop=crop))


def _kept(old: Any, new: Any, like: Tensor) -> Any:
    """The module of the checkpoint if it has the shapes of the new one, else the new one."""
    if new is None:
        return None
    shapes = lambda module: {n: p.shape for n, p in module.state_dict().items()}
    same = old is not None and shapes(old) == shapes(new)
    return old if same else new.to(device=like.device, dtype=like.dtype)
