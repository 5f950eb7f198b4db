"""`invact vla merge`: a LoRA adapter and its base as one checkpoint folder.

Summed in fp32, and the logits before and after are compared: published fine-tunes that were merged
again in bf16 have been seen to score 0 % (github.com/moojink/openvla-oft/issues/151).
"""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import torch

from invact_vla.core.errors import UserError
from invact_vla.openvla.adapters.adapter import load_on_base
from invact_vla.openvla.adapters.lora import merge
from invact_vla.openvla.checkpoints.checkpoint import VLACheckpoint, complete, save_pretrained
from invact_vla.openvla.checkpoints.folder import adapter_folder, checkpoint_folder
from invact_vla.openvla.processor import FILE, ImageProcessor
from invact_vla.untrusted.torch_files import check_finite

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class MergeConfig:
    """An adapter, its base, and where the checkpoint goes."""

    POSITIONAL: ClassVar[str] = "adapter"

    adapter: Path  # folder with adapter_config.json, or the run that holds it
    base: Path  # checkpoint that the adapter was trained on, or the run that holds it
    out: Path  # checkpoint folder to write
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the weights on disk; sums are in float32


def main(config: MergeConfig) -> Path:
    """Merge and save; returns the checkpoint folder."""
    inputs = (checkpoint_folder(config.base), adapter_folder(config.adapter))
    if config.out.resolve() in [path.resolve() for path in inputs]:
        raise UserError(f"--out {config.out} is an input: give a new folder")
    if config.out.is_dir() and any(config.out.iterdir()):
        raise UserError(f"--out {config.out} exists and is not empty: give a new folder")
    pretrained = load_merged(*inputs)
    check_finite(pretrained.model.state_dict(), inputs[1])
    pretrained.model.to(getattr(torch, config.dtype))
    save_pretrained(pretrained, config.out)
    logger.info("%s: %s merged into %s", config.out, inputs[1], inputs[0])
    return config.out


def load_merged(base: Path, adapter: Path) -> VLACheckpoint:
    """A checkpoint with an adapter merged into it, in fp32. Tokenizer of the base; image processor of
    the adapter where it has one."""
    base, adapter = checkpoint_folder(base), adapter_folder(adapter)
    pretrained = complete(load_on_base(base, adapter), base)
    merge(pretrained.model)
    if (adapter / FILE).is_file():
        pretrained = replace(pretrained, processor=ImageProcessor.load(adapter))
    return pretrained
