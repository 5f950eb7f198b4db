"""A checkpoint folder as a policy: observation in, chunk of actions out.

Source of the post-processing: OpenVLA's LIBERO evaluation (github.com/openvla/openvla,
experiments/robot/libero). The folder is all that is needed.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from invact_vla.core.errors import UserError
from invact_vla.core.schema import ActionChunk, Observation
from invact_vla.data.action_stats import ActionStats, normalize, unnormalize
from invact_vla.data.conventions import rotate, to_libero_action
from invact_vla.openvla.attention import AttentionImpl
from invact_vla.openvla.checkpoints.checkpoint import VLACheckpoint, load_pretrained
from invact_vla.openvla.heads import action_head
from invact_vla.openvla.heads.head import device_of
from invact_vla.openvla.inference.int8 import Quantize, quantize_model
from invact_vla.training.device import Device, resolve_device, resolve_dtype


class OpenVLAPolicy:
    """Greedy decoding. needs: cameras it reads; chunk: actions per call."""

    def __init__(self, pretrained: VLACheckpoint, key: str | None = None) -> None:
        config = pretrained.config
        self.pretrained = pretrained
        self.head = action_head(pretrained)
        self.device = device_of(pretrained.model)
        self.needs = tuple(config.invact.cameras)
        self.image_rotation = config.invact.image_rotation or ("none",) * len(self.needs)
        self.gripper_open = config.invact.gripper_open
        self.sequences = pretrained.sequences
        self.chunk = config.invact.chunk
        self.key, statistics = select_norm_stats(config.norm_stats, key)
        self.actions = ActionStats.from_json(statistics["action"])
        if len(self.actions.q01) != config.invact.action_dim:
            raise UserError(
                f"statistics {self.key!r} have {len(self.actions.q01)} action dimensions, "
                f"the model {config.invact.action_dim}"
            )
        self.proprio = _proprio_statistics(statistics, config.invact.proprio_dim, self.key)

    @classmethod
    def from_pretrained(
        cls,
        folder: Path,
        key: str | None = None,
        attention: AttentionImpl = "auto",
        device: Device = "auto",
        dtype: str | torch.dtype = "auto",
        quantize: Quantize = "none",
    ) -> "OpenVLAPolicy":
        """Load a folder. key: which statistics, needed only when the folder has several. device and
        dtype: as in training/device.py. quantize: "int8" for the language model's weights (int8.py)."""
        device = resolve_device(device)
        pretrained = load_pretrained(folder, attention, resolve_dtype(dtype, device), device)
        quantize_model(pretrained.model, quantize)
        return cls(pretrained, key)

    def reset(self, seed: int) -> None:
        """Nothing is remembered between calls, and decoding is greedy."""

    def act(self, observation: Observation) -> ActionChunk:
        """The next `chunk` actions."""
        return self.act_batch([observation])[0]

    def act_batch(self, observations: list[Observation]) -> list[ActionChunk]:
        """One chunk per observation, decoded together."""
        with torch.inference_mode():
            chunks = self.head.decode(
                self.pretrained.model,
                [o.instruction for o in observations],
                self.pixel_values(observations),
                self.state(observations),
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
            views.append(
                torch.cat([self.pretrained.processor(rotate(f[None], how)) for f in frames])
            )
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
    if key is None:
        if len(known) > 1:
            raise UserError(
                f"this checkpoint has several statistics, {', '.join(known)}: choose, as with "
                f"--policy.statistics {known[0]}"
            )
        key = known[0]
    found = next((k for k in (key, f"{key}_no_noops") if k in norm_stats), None)
    if found is None:
        raise UserError(f"no action statistics {key!r} in this checkpoint: it has {known}")
    if "action" not in norm_stats[found]:
        raise UserError(f"statistics {found!r} lack `action`")
    return found, norm_stats[found]


def _proprio_statistics(statistics: dict[str, Any], size: int, key: str) -> ActionStats | None:
    if not size:
        return None
    if "proprio" not in statistics:
        raise UserError(f"the model reads the robot's state, but statistics {key!r} lack `proprio`")
    stats = ActionStats.from_json(statistics["proprio"])
    if len(stats.q01) != size:
        raise UserError(f"statistics {key!r}: proprio of {len(stats.q01)} numbers, expected {size}")
    return stats
