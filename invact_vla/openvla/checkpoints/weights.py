"""Weights of a checkpoint folder <-> OpenVLA, strictly.

Files are safetensors under published key names, one file or shards with an index. LayerScale is
`gamma` in timm and `scale_factor` on disk. The blocks that are never run are kept.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict
from torch import Tensor
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from invact_vla.core.errors import UserError
from invact_vla.core.limits import some
from invact_vla.openvla.attention import AttentionImpl
from invact_vla.openvla.checkpoints.config_file import config_to_json, read_config
from invact_vla.openvla.checkpoints.folder import checkpoint_folder
from invact_vla.openvla.checkpoints.oft_files import read_oft
from invact_vla.openvla.config import OpenVLAConfig
from invact_vla.openvla.head_configs import OftHeadConfig
from invact_vla.openvla.model import OpenVLA
from invact_vla.training.device import CPU, Device, resolve_device, resolve_dtype
from invact_vla.untrusted.model_config import on_meta
from invact_vla.untrusted.torch_files import read_safetensors, stored_shapes, weight_files

SHARD_BYTES = 5_000_000_000


def published_name(name: str) -> str:
    """Our parameter name -> the name on disk."""
    if ".ls1.gamma" in name or ".ls2.gamma" in name:
        return name.removesuffix("gamma") + "scale_factor"
    return name


def is_adapter_weight(name: str) -> bool:
    """Whether a parameter belongs to a LoRA adapter."""
    return ".lora_" in name


def load_weights(
    folder: Path, device: torch.device = CPU, dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """All tensors of a folder under their names on disk, read straight to `device`; dtype None keeps
    that of the file. As in stock code, a single file wins over an index, which then is left from an
    earlier save."""
    folder = Path(folder)
    weights = {n: t.to(device, dtype) for n, t in read_oft(folder).items()}
    for path in weight_files(folder):
        weights.update(read_safetensors(path, device, dtype))
    return weights


def from_pretrained(
    folder: Path,
    attention: AttentionImpl = "auto",
    dtype: str | torch.dtype | None = torch.float32,
    config: OpenVLAConfig | None = None,
    extra: Mapping[str, Tensor] | None = None,
    device: Device = CPU,
) -> OpenVLA:
    """Load a checkpoint folder, or the run folder that holds one. dtype None keeps that of the file.
    Missing, unexpected and mis-shaped keys are a UserError that names them. `config`, if given,
    replaces the folder's own; `extra` tensors are put beside those of the folder, or in their place.
    Weights are read straight to `device`; device and dtype as in training/device.py."""
    folder, device = checkpoint_folder(folder), resolve_device(device)
    dtype = None if dtype is None else resolve_dtype(dtype, device)
    config = read_config(folder) if config is None else config
    _refuse_layers(config, folder)
    model = on_meta(
        lambda: OpenVLA(config, attention), f"{folder}/config.json describes no OpenVLA"
    )
    weights = load_weights(folder, device, dtype)
    weights |= {n: t.to(device, dtype) for n, t in (extra or {}).items()}
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    tied = config.text_config.tie_word_embeddings
    if tied:
        weights.setdefault("language_model.lm_head.weight", weights.get(_EMBEDDING, torch.empty(0)))
    shapes = {n: tuple(t.shape) for n, t in model.state_dict().items()}
    expected = {published_name(n): n for n in shapes}
    _check(weights, {d: shapes[n] for d, n in expected.items()}, folder)
    ready = {n: weights[d] for d, n in expected.items()}
    model.load_state_dict(ready, assign=True)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
    language = model.language_model
    if tied:
        language.lm_head.weight = language.model.embed_tokens.weight
    # its buffers are not on disk
    language.model.rotary_emb = LlamaRotaryEmbedding(language.config).to(device)
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


_EMBEDDING = "language_model.model.embed_tokens.weight"


def _check(weights: dict[str, Tensor], shapes: dict[str, tuple[int, ...]], folder: Path) -> None:
    """Compare the keys and shapes of a folder with those its config asks for."""
    problems = []
    missing = sorted(set(shapes) - set(weights))
    unexpected = sorted(set(weights) - set(shapes))
    for what, names in (("missing", missing), ("unexpected", unexpected)):
        if names:
            problems.append(f"{len(names)} {what} key(s): {some(names)}")
    wrong = [
        f"{n} is {tuple(weights[n].shape)}, expected {shapes[n]}"
        for n in sorted(set(shapes) & set(weights))
        if tuple(weights[n].shape) != shapes[n]
    ]
    if wrong:
        problems.append(f"{len(wrong)} key(s) of another shape: {some(wrong)}")
    if problems:
        raise UserError(
            f"weights in {folder} are not those of its config.json: {'; '.join(problems)}. "
            "Check that config.json and the weights belong together"
        )


def save_weights(
    model: OpenVLA, folder: Path, shard_bytes: int = SHARD_BYTES, leave_out: tuple[str, ...] = ()
) -> None:
    """Write the weights under published names, in shards of at most `shard_bytes`, in the place of
    those of an earlier save. Names that start with one of `leave_out` are not written."""
    if any(is_adapter_weight(name) for name in model.state_dict()):
        raise UserError(
            "this model has LoRA adapters: save them alone (save_adapter), or merge them first (merge)"
        )
    kept = {
        n: t.detach().contiguous()
        for n, t in model.state_dict().items()
        if not n.startswith(leave_out)
    }
    tensors = {
        published_name(n): t if t.untyped_storage().nbytes() == t.nbytes else t.clone()  # a view
        for n, t in kept.items()
    }
    if model.config.text_config.tie_word_embeddings:
        del tensors["language_model.lm_head.weight"]
    save_torch_state_dict(tensors, folder, max_shard_size=shard_bytes)


def save_model(
    model: OpenVLA, folder: Path, shard_bytes: int = SHARD_BYTES, leave_out: tuple[str, ...] = ()
) -> None:
    """Write config.json, generation_config.json, dataset_statistics.json and the weights, but for
    those whose names start with one of `leave_out`."""
    config = model.config
    files = {
        "config.json": {
            **config_to_json(config),
            "torch_dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        },
        "generation_config.json": {
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": config.pad_token_id,
        },
    }
    if config.norm_stats:
        files["dataset_statistics.json"] = config.norm_stats
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value, indent=2) + "\n")
    save_weights(model, folder, shard_bytes, leave_out)
