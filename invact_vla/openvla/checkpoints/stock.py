"""A model as other OpenVLA programs save it: the layout, what these programs cannot know, and the card.

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
from jinja2 import Template

from invact_vla.core.files import read_json, write_json
from invact_vla.data.action_stats import ActionStats
from invact_vla.openvla.checkpoints.checkpoint import VLACheckpoint, save_model
from invact_vla.openvla.checkpoints.oft_files import PARTS
from invact_vla.openvla.config import (
    PROMPT,
    HeadConfig,
    OftHeadConfig,
    OpenVLAConfig,
    TextHeadConfig,
)
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
    found = dict(norm_stats)
    for key, value in norm_stats.items():
        if "bounds" in value.get("action", {}).get("invact", {}):
            action = ActionStats.from_json(value["action"]).for_published_readers()
            found[key] = {**value, "action": action.to_json()}
    return found


def _save_special_tokens(folder: Path, pad_token_id: int) -> None:
    """What transformers needs beside Llama-2's pieces: the padding token right behind them."""
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<PAD>"}
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    entries = {name: {"content": text, **plain} for name, text in names.items()}
    write_json(folder / "special_tokens_map.json", entries)
    write_json(folder / "added_tokens.json", {"<PAD>": pad_token_id})
    ids = {0: "<unk>", 1: "<s>", 2: "</s>", pad_token_id: "<PAD>"}
    decoder = {str(i): {"content": text, "special": True, **plain} for i, text in ids.items()}
    path = folder / "tokenizer_config.json"
    more = {"add_bos_token": True, "add_eos_token": False, "added_tokens_decoder": decoder,
            "legacy": True, "processor_class": "PrismaticProcessor"}  # fmt: skip
    write_json(path, read_json(path) | more)


def beyond_stock(config: OpenVLAConfig) -> list[str]:
    """What of a model OpenVLA and OpenVLA-OFT would leave out without a word, in words. Their actions
    would then be others than the model's."""
    own, head = config.invact, config.invact.head
    oft = isinstance(head, OftHeadConfig)
    few = oft and head.slots_per_action not in (None, own.action_dim)
    found = {
        "actions as text": isinstance(head, TextHeadConfig),
        "learned slot embeddings": oft and head.learned_slots,
        "other than one slot per number": few,
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
    actions = [value.get("action", {}) for value in config.norm_stats.values()]
    rests = any("rest_fraction" in action.get("invact", {}) for action in actions)
    described = "they are described under `towers` in config.json"
    found = {
        f"towers that timm has no name for: {described}": config.towers,
        "vocabulary rows of latent codes (`invact.latent_token_ids`)": own.latent_token_ids,
        "decoding among action ids only (`invact.constrain_actions`)": own.constrain_actions,
        "pictures turned in another way than LIBERO's evaluation does": {*own.image_rotation} - {"none"},
        "a gripper value of 0 that means open": own.gripper_open == 0,
        "a tokenizer other than Llama-2's": config.vocab_size != 32000,
        "answers near rest that decode to exactly 0 (`rest_fraction` of the statistics)": rests,
    }  # fmt: skip
    return [words for words, holds in found.items() if holds]


def model_card(
    name: str, config: OpenVLAConfig, *, parameters: int, dtype: str,
    license_name: str | None = None, run: Path | None = None,
) -> str:  # fmt: skip
    """README.md in the hub's layout: what the folder itself shows, and of the run that made it only
    hashes and versions, since paths of the machine that trained are nobody's business. name: title,
    without a path."""
    text = (Path(__file__).parent / "templates/card.md.j2").read_text()
    own, made = config.invact, None if run is None else read_json(run / "provenance.json")
    return Template(text, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True).render(
        name=name, own=own, parameters=parameters, dtype=dtype, license_name=license_name, made=made,
        head=HeadConfig.get_choice_name(type(own.head)), prompt=json.dumps(own.prompt),
        statistics=sorted(config.norm_stats.items()), beside=beside_stock(config),
        beyond=beyond_stock(config),
    )  # fmt: skip
