"""A whole checkpoint folder: model, tokenizer and image processor, written and read together, strictly.

Files: config.json, model.safetensors (or shards with an index), generation_config.json,
preprocessor_config.json, tokenizer.json or tokenizer.model, tokenizer_config.json,
dataset_statistics.json. Weights have published names: LayerScale is `gamma` in timm and `scale_factor`
on disk. The blocks that are never run are kept.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict
from torch import Tensor

from invact_vla.core.errors import UserError
from invact_vla.core.files import atomic_folder
from invact_vla.core.limits import some
from invact_vla.openvla.attention import AttentionImpl
from invact_vla.openvla.checkpoints.config_file import config_to_json, read_config
from invact_vla.openvla.checkpoints.folder import checkpoint_folder, is_checkpoint
from invact_vla.openvla.checkpoints.oft_files import read_oft
from invact_vla.openvla.config import OftHeadConfig, OpenVLAConfig
from invact_vla.openvla.model import OpenVLA, build_model
from invact_vla.openvla.processor import ImageProcessor
from invact_vla.openvla.tokenizer import SequenceBuilder, Tokenizer, load_tokenizer, train_tokenizer
from invact_vla.training.device import CPU, Device, resolve_device, resolve_dtype
from invact_vla.untrusted.model_config import on_meta
from invact_vla.untrusted.torch_files import (
    differences,
    read_safetensors,
    stored_shapes,
    weight_files,
)

SHARD_BYTES = 5_000_000_000
_EMBEDDING, _HEAD = "language_model.model.embed_tokens.weight", "language_model.lm_head.weight"


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
    own = replace(config.invact, separator_token_id=tokenizer.separator_id)
    config = replace(config, invact=own)
    return VLACheckpoint(build_model(config, seed, attention), tokenizer, ImageProcessor.of(config))


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
    folder: Path, attention: AttentionImpl = "auto",
    dtype: str | torch.dtype | None = torch.float32, device: Device = CPU,
) -> VLACheckpoint:  # fmt: skip
    """Read a checkpoint folder, ours or a published one, or the run folder that holds one, strictly;
    weights straight to `device`."""
    folder = checkpoint_folder(folder)
    return complete(from_pretrained(folder, attention, dtype, device=device), folder)


def complete(model: OpenVLA, folder: Path) -> VLACheckpoint:
    """A model with the tokenizer and the image processor of a checkpoint folder."""
    config, tokenizer = model.config, load_tokenizer(folder, model.config.vocab_size)
    if tokenizer.vocab_size != config.vocab_size:
        raise UserError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} pieces, the model "
            f"{config.vocab_size}: they do not belong together"
        )
    if config.invact.separator_token_id is None and tokenizer.separator_id is not None:
        own = replace(config.invact, separator_token_id=tokenizer.separator_id)
        model.config = replace(config, invact=own)
    processor = ImageProcessor.load(folder)
    made, read = (processor.size, len(processor.means)), (config.image_size, config.n_towers)
    if made != read:
        raise UserError(
            f"{folder}/preprocessor_config.json makes pictures of {made[0]} px for {made[1]} tower(s), "
            f"the model reads {read[0]} px with {read[1]}: give the file that belongs to this model"
        )
    return VLACheckpoint(model, tokenizer, processor)


def published_name(name: str) -> str:
    """Our parameter name -> the name on disk."""
    is_scale = name.endswith((".ls1.gamma", ".ls2.gamma"))
    return name.removesuffix("gamma") + "scale_factor" if is_scale else name


def is_adapter_weight(name: str) -> bool:
    """Whether a parameter belongs to a LoRA adapter."""
    return ".lora_" in name


def load_weights(
    folder: Path, device: torch.device = CPU, dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """All tensors of a folder under their names on disk, read straight to `device`; dtype None keeps
    that of the file. As in stock code, a single file wins over an index, which then is left from an
    earlier save."""
    weights = {n: t.to(device, dtype) for n, t in read_oft(folder).items()}
    for path in weight_files(folder):
        found = read_safetensors(path, device, dtype)
        if twice := found.keys() & weights.keys():
            raise UserError(
                f"{path} holds {some(sorted(twice))}, which an earlier file of {folder} holds too: one "
                "of them is of another save; fetch the folder again"
            )
        weights |= found
    return weights


def from_pretrained(
    folder: Path, attention: AttentionImpl = "auto",
    dtype: str | torch.dtype | None = torch.float32, config: OpenVLAConfig | None = None,
    extra: Mapping[str, Tensor] | None = None, device: Device = CPU,
) -> OpenVLA:  # fmt: skip
    """The model of a checkpoint folder, or of the run folder that holds one, in eval mode. dtype None
    keeps that of the file. Missing, unexpected and mis-shaped keys are a UserError that names them.
    `config`, if given, replaces the folder's own; `extra` tensors are put beside those of the folder,
    or in their place. Device and dtype as in training/device.py."""
    folder, device = checkpoint_folder(folder), resolve_device(device)
    dtype = None if dtype is None else resolve_dtype(dtype, device)
    config = read_config(folder) if config is None else config
    _refuse_layers(config, folder)
    fault = f"{folder}/config.json describes no OpenVLA"
    model = on_meta(lambda: OpenVLA(config, attention), fault)
    weights = load_weights(folder, device, dtype)
    weights |= {n: t.to(device, dtype) for n, t in (extra or {}).items()}
    if config.text_config.tie_word_embeddings:
        weights.setdefault(_HEAD, weights.get(_EMBEDDING, torch.empty(0)))
    names = {published_name(n): n for n in model.state_dict()}
    shapes = {published_name(n): t.shape for n, t in model.state_dict().items()}
    if wrong := differences(weights, shapes):
        raise UserError(
            f"weights in {folder} are not those of its config.json: {wrong}. Check that config.json "
            "and the weights belong together"
        )
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    model.load_state_dict({name: weights[n] for n, name in names.items()}, assign=True)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
    model.finish_loading(device)
    left = [n for n, t in [*model.named_parameters(), *model.named_buffers()] if t.is_meta]
    assert not left, f"not loaded: {left}"
    return model.eval()


def _refuse_layers(config: OpenVLAConfig, folder: Path) -> None:
    """UserError for more layers than there are tensors: to build so many takes time even without
    memory."""
    head = config.invact.head
    layers = config.text_config.num_hidden_layers + sum(t.depth for t in config.towers)
    layers += head.blocks if isinstance(head, OftHeadConfig) else 0
    stored = sum(len(stored_shapes(path)) for path in weight_files(folder)) + len(read_oft(folder))
    if layers > stored:
        raise UserError(
            f"{folder} is damaged or incomplete: its config.json asks for {layers} layers, its files "
            f"hold {stored} tensors"
        )


def save_model(
    model: OpenVLA, folder: Path, shard_bytes: int = SHARD_BYTES, leave_out: tuple[str, ...] = ()
) -> None:
    """Write config.json, generation_config.json, dataset_statistics.json, and the weights in shards of
    at most `shard_bytes`, in the place of those of an earlier save, but for those whose names start
    with one of `leave_out`."""
    state, config = model.state_dict(), model.config
    if any(map(is_adapter_weight, state)):
        raise UserError(
            "this model has LoRA adapters: save them alone (save_adapter), or merge them first (merge)"
        )
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": config.pad_token_id}
    files = {
        "config.json": {**config_to_json(config), "torch_dtype": dtype},
        "generation_config.json": ids,
        "dataset_statistics.json": config.norm_stats,
    }
    for name, value in files.items():
        if value:
            (folder / name).write_text(json.dumps(value, indent=2) + "\n")
    kept = {n: t.detach().contiguous() for n, t in state.items() if not n.startswith(leave_out)}
    if config.text_config.tie_word_embeddings:
        del kept[_HEAD]
    tensors = {
        published_name(n): t if t.untyped_storage().nbytes() == t.nbytes else t.clone()  # a view
        for n, t in kept.items()
    }
    save_torch_state_dict(tensors, folder, max_shard_size=shard_bytes)
