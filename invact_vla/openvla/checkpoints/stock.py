"""A model as other OpenVLA programs save it: the layout, and what these programs cannot know.

    config.json, generation_config.json, dataset_statistics.json, model*.safetensors    published keys
    preprocessor_config.json, tokenizer.model, tokenizer_config.json,
    special_tokens_map.json, added_tokens.json                                           the processor
    action_head--<steps>_checkpoint.pt, proprio_projector--<steps>_checkpoint.pt         OpenVLA-OFT

The last two are what OpenVLA-OFT's head and state projector are saved as, under its names. What this
project adds to config.json stands under "invact" and "towers", which stock code passes over.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from invact_vla.core.files import write_json
from invact_vla.data.action_stats import ActionStats
from invact_vla.openvla.checkpoints.checkpoint import VLACheckpoint
from invact_vla.openvla.checkpoints.oft_files import PARTS
from invact_vla.openvla.checkpoints.weights import save_model
from invact_vla.openvla.config import PROMPT, OpenVLAConfig
from invact_vla.openvla.head_configs import OftHeadConfig, TextHeadConfig
from invact_vla.openvla.tokenizer import MODEL_FILE

PREFIX = "module."  # of DistributedDataParallel, which OFT's files are saved under


def save_stock(
    pretrained: VLACheckpoint, folder: Path, shard_bytes: int, steps: str = "latest"
) -> None:
    """Write the files into an empty folder. steps: stands in the names of OFT's files."""
    model = pretrained.model
    model.config = replace(model.config, norm_stats=stock_statistics(model.config.norm_stats))
    save_model(model, folder, shard_bytes, tuple(f"{part}." for part in PARTS))
    pretrained.processor.save(folder)
    pretrained.tokenizer.save(folder)
    if (folder / MODEL_FILE).is_file():
        _save_special_tokens(folder, model.config.pad_token_id)
    for part in PARTS:
        tensors = {
            PREFIX + name.removeprefix(f"{part}."): tensor.detach().cpu().contiguous().clone()
            for name, tensor in model.state_dict().items()
            if name.startswith(f"{part}.")
        }
        if tensors:
            torch.save(tensors, folder / f"{part}--{steps}_checkpoint.pt")


def stock_statistics(norm_stats: dict[str, Any]) -> dict[str, Any]:
    """The statistics with the bounds of the actions where stock code looks for them, in q01 and q99."""
    return {
        key: {
            **value,
            "action": ActionStats.from_json(value["action"]).for_published_readers().to_json(),
        }
        if "bounds" in value.get("action", {}).get("invact", {})
        else value
        for key, value in norm_stats.items()
    }


def _save_special_tokens(folder: Path, pad_token_id: int) -> None:
    """What transformers needs beside Llama-2's pieces: the padding token right behind them."""
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<PAD>"}
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    entries = {name: {"content": text, **plain} for name, text in names.items()}
    write_json(folder / "special_tokens_map.json", entries)
    write_json(folder / "added_tokens.json", {"<PAD>": pad_token_id})
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    ids = {0: "<unk>", 1: "<s>", 2: "</s>", pad_token_id: "<PAD>"}
    config |= {
        "add_bos_token": True,
        "add_eos_token": False,
        "added_tokens_decoder": {
            str(i): {"content": text, "special": True, **plain} for i, text in ids.items()
        },
        "legacy": True,
        "processor_class": "PrismaticProcessor",
    }
    write_json(path, config)


def beyond_stock(config: OpenVLAConfig) -> list[str]:
    """What of a model OpenVLA and OpenVLA-OFT would leave out without a word, in words. Their actions
    would then be others than the model's."""
    own, head = config.invact, config.invact.head
    oft = isinstance(head, OftHeadConfig)
    found = {
        "actions as text": isinstance(head, TextHeadConfig),
        "learned slot embeddings": isinstance(head, OftHeadConfig) and head.learned_slots,
        "other than one slot per number": isinstance(head, OftHeadConfig)
        and head.slots_per_action not in (None, own.action_dim),
        f"chunks of {own.chunk} action tokens": not oft and own.chunk > 1,
        "a wrist camera without the oft head": not oft and "wrist" in own.cameras,
        "no third-person camera": "agentview" not in own.cameras,
        "a state token without the oft head": not oft and own.proprio_dim > 0,
        "a prompt of its own": own.prompt != PROMPT,
    }
    return [words for words, holds in found.items() if holds]


def beside_stock(config: OpenVLAConfig) -> list[str]:
    """What stock code must be told in other ways than by the folder."""
    own = config.invact
    found = {
        "towers that timm has no name for: they are described under `towers` in config.json": bool(
            config.towers
        ),
        "vocabulary rows of latent codes (`invact.latent_token_ids`)": bool(own.latent_token_ids),
        "decoding among action ids only (`invact.constrain_actions`)": own.constrain_actions,
        "pictures turned in another way than LIBERO's evaluation does": any(
            how != "none" for how in own.image_rotation
        ),
        "a gripper value of 0 that means open": own.gripper_open == 0,
        "a tokenizer other than Llama-2's": config.vocab_size != 32000,
        "answers near rest that decode to exactly 0 (`rest_fraction` of the statistics)": any(
            "rest_fraction" in value.get("action", {}).get("invact", {})
            for value in config.norm_stats.values()
        ),
    }
    return [words for words, holds in found.items() if holds]
