"""`invact vla merge`: a LoRA adapter and its base as one checkpoint folder.

Summed in fp32, and the logits before and after are compared: published fine-tunes that were merged
again in bf16 have been seen to score 0 % (github.com/moojink/openvla-oft/issues/151).
"""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import torch

from invact_vla.errors import UserError
from invact_vla.openvla.adapter import load_on_base
from invact_vla.openvla.folder import checkpoint_folder, is_adapter
from invact_vla.openvla.lora import merge
from invact_vla.openvla.pretrained import complete, save_pretrained
from invact_vla.openvla.processor import FILE, ImageProcessor

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class MergeConfig:
    """An adapter, its base, and where the checkpoint goes."""

    POSITIONAL: ClassVar[str] = "adapter"

    adapter: Path  # folder with adapter_config.json
    base: Path  # checkpoint that the adapter was trained on
    out: Path  # checkpoint folder to write
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the weights on disk; sums are in float32


def main(config: MergeConfig) -> Path:
    """Merge and save; returns the checkpoint folder."""
    if not is_adapter(config.adapter):
        raise UserError(
            f"{config.adapter} is no adapter folder: expected adapter_config.json in it"
        )
    base = checkpoint_folder(config.base)
    if config.out.resolve() in (base.resolve(), config.adapter.resolve()):
        raise UserError(f"--out {config.out} is an input: give a new folder")
    model = merge(load_on_base(base, config.adapter))
    pretrained = complete(model.to(getattr(torch, config.dtype)), base)
    if (config.adapter / FILE).is_file():
        pretrained = replace(pretrained, processor=ImageProcessor.load(config.adapter))
    save_pretrained(pretrained, config.out)
    logger.info("%s: %s merged into %s", config.out, config.adapter, base)
    return config.out
