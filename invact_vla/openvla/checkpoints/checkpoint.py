"""A whole checkpoint folder: model, tokenizer and image processor, written and read together.

Files: config.json, model.safetensors (or shards), generation_config.json, preprocessor_config.json,
tokenizer.json or tokenizer.model, tokenizer_config.json, dataset_statistics.json.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from invact_vla.core.errors import UserError
from invact_vla.core.files import atomic_folder
from invact_vla.openvla.attention import AttentionImpl
from invact_vla.openvla.checkpoints.folder import checkpoint_folder, is_checkpoint
from invact_vla.openvla.checkpoints.weights import from_pretrained, save_model
from invact_vla.openvla.config import OpenVLAConfig
from invact_vla.openvla.model import OpenVLA, build_model
from invact_vla.openvla.processor import ImageProcessor
from invact_vla.openvla.prompt import SequenceBuilder
from invact_vla.openvla.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
from invact_vla.training.device import CPU, Device


@dataclass(frozen=True)
class VLACheckpoint:
    """What a checkpoint folder holds."""

    model: OpenVLA
    tokenizer: Tokenizer
    processor: ImageProcessor

    @property
    def config(self) -> OpenVLAConfig:
        """The model's config."""
        return self.model.config

    @property
    def sequences(self) -> SequenceBuilder:
        """Builder of prompts and training sequences."""
        own = self.config.invact
        return SequenceBuilder(self.tokenizer, own.separator_token_id, own.prompt)


def fresh(
    config: OpenVLAConfig, texts: Iterable[str], seed: int, attention: AttentionImpl = "auto"
) -> VLACheckpoint:
    """Random weights, and a tokenizer trained on `texts` (prompts with their instructions)."""
    tokenizer = train_tokenizer(texts, config.vocab_size, config.n_action_bins)
    if config.pad_token_id != tokenizer.pad_token_id:
        raise UserError(
            f"pad_token_id must follow the vocabulary: expected {tokenizer.pad_token_id}, got "
            f"{config.pad_token_id}"
        )
    separator = replace(config.invact, separator_token_id=tokenizer.separator_id)
    config = replace(config, invact=separator)
    model = build_model(config, seed, attention)
    return VLACheckpoint(model, tokenizer, ImageProcessor.of(config))


def save_pretrained(pretrained: VLACheckpoint, folder: Path) -> None:
    """Write the folder, atomically; nothing of an earlier checkpoint stays in it."""
    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()) and not is_checkpoint(folder):
        raise UserError(
            f"{folder} holds other files and is no checkpoint folder: saving would replace them; "
            "give a new folder"
        )
    with atomic_folder(folder) as temporary:
        save_model(pretrained.model, temporary)
        pretrained.tokenizer.save(temporary)
        pretrained.processor.save(temporary)


def load_pretrained(
    folder: Path,
    attention: AttentionImpl = "auto",
    dtype: str | torch.dtype | None = torch.float32,
    device: Device = CPU,
) -> VLACheckpoint:
    """Read a checkpoint folder, ours or a published one, or the run folder that holds one, strictly;
    weights straight to `device`."""
    folder = checkpoint_folder(folder)
    return complete(from_pretrained(folder, attention, dtype, device=device), folder)


def complete(model: OpenVLA, folder: Path) -> VLACheckpoint:
    """A model with the tokenizer and the image processor of a checkpoint folder."""
    config = model.config
    tokenizer = load_tokenizer(folder, config.vocab_size)
    if tokenizer.vocab_size != config.vocab_size:
        raise UserError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} pieces, the model "
            f"{config.vocab_size}: they do not belong together"
        )
    if config.invact.separator_token_id is None and tokenizer.separator_id is not None:
        own = replace(config.invact, separator_token_id=tokenizer.separator_id)
        model.config = replace(config, invact=own)
    return VLACheckpoint(model, tokenizer, ImageProcessor.load(folder))
