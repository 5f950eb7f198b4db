"""What OpenVLA-OFT saves beside the weights: its L1 head and its projector of the robot's state.

    action_head--<step>_checkpoint.pt, proprio_projector--<step>_checkpoint.pt

Its config.json is that of the OpenVLA it started from: sizes come from the shapes in these files, and
what they do not tell from the constants of the public code (prismatic/vla/constants.py, LIBERO.md of
github.com/moojink/openvla-oft).
"""

import re
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from invact_vla.core.errors import UserError
from invact_vla.core.limits import inside, some
from invact_vla.openvla.checkpoints.folder import OFT_FILES
from invact_vla.openvla.config import OftHeadConfig, OpenVLAConfig
from invact_vla.untrusted.torch_files import read_tensors

PARTS = ("action_head", "proprio_projector")  # modules of OpenVLA, and how the files' names start
_CHUNKS = {14: 25}  # actions per call by numbers of an action: two arms (ALOHA)
_CHUNK, _BRIDGE_CHUNK = 8, 5  # one arm: LIBERO, and BridgeData
_FIRST = "action_head.model.fc1.weight"
_LAST = "action_head.model.fc2.weight"
_STATE = "proprio_projector.fc1.weight"


def oft_files(folder: Path) -> dict[str, Path]:
    """The file of each part that lies in `folder`; two of one part are a UserError."""
    found: dict[str, Path] = {}
    for part, pattern in zip(PARTS, OFT_FILES, strict=True):
        paths = sorted(Path(folder).glob(pattern))
        if len(paths) > 1:
            raise UserError(
                f"{folder} holds {len(paths)} files of {part} ({some(p.name for p in paths)}): keep "
                "the one that was saved with these weights"
            )
        if paths:
            found[part] = inside(folder, paths[0].name)
    return found


def read_oft(folder: Path) -> dict[str, Tensor]:
    """The tensors of these files under our names; none where there are no such files."""
    found = {
        f"{part}.{name}": tensor
        for part, path in oft_files(folder).items()
        for name, tensor in read_tensors(path).items()
    }
    for name in (_FIRST, _LAST, _STATE):
        if name in found and found[name].ndim != 2:
            raise UserError(
                f"{folder}: {name} has {found[name].ndim} dimensions, expected 2: fetch it again"
            )
    return found


def oft_config(config: OpenVLAConfig, folder: Path) -> OpenVLAConfig:
    """`config` with the head, the state token, the cameras and the chunk of an OFT folder.

    Without a head (the discrete variant) the slots are read as action ids.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in read_oft(folder).items()}
    if not shapes:
        return config
    own, width = config.invact, config.text_config.hidden_size
    action_dim = shapes[_LAST][0] if _LAST in shapes else own.action_dim
    proprio_dim = shapes[_STATE][1] if _STATE in shapes else 0
    blocks = {m[1] for n in shapes if (m := re.match(r"action_head\..*resnet_blocks\.(\d+)\.", n))}
    has_head = any(name.startswith("action_head.") for name in shapes)
    if has_head and shapes.get(_FIRST) != (width, action_dim * width):
        raise UserError(
            f"{oft_files(folder)['action_head']} is not the L1 head of this model: "
            f"{_FIRST.removeprefix('action_head.')} is {shapes.get(_FIRST)}, expected "
            f"{(width, action_dim * width)}"
        )
    chunk = _CHUNKS.get(action_dim, _CHUNK)
    if config.norm_stats and all("bridge" in name for name in config.norm_stats):
        chunk = _BRIDGE_CHUNK
    own = replace(
        own, chunk=chunk, action_dim=action_dim, proprio_dim=proprio_dim,
        head=OftHeadConfig(output="l1" if has_head else "tokens", blocks=len(blocks)),
        cameras=("agentview", "wrist") if proprio_dim else ("agentview",),
    )  # fmt: skip
    return replace(config, invact=own)
