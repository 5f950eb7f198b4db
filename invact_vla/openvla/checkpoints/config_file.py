"""config.json of a folder <-> OpenVLAConfig, and the YAML of configs/vla/model_*.yaml."""

import copy
from collections.abc import Collection
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import draccus
from transformers import LlamaConfig

from invact_vla.config.yaml_text import read_yaml
from invact_vla.core.errors import UserError
from invact_vla.core.files import read_object
from invact_vla.core.limits import short, some
from invact_vla.openvla.checkpoints.folder import checkpoint_folder
from invact_vla.openvla.checkpoints.oft_files import oft_config
from invact_vla.openvla.config import OpenVLAConfig, TowerConfig, llama_config
from invact_vla.untrusted.model_config import decode_config

_BY_NAME = "expected an object of statistics for each data set by its name, such as libero_10"
_MODEL_TYPES = ("openvla", "prismatic")
_LLAMA_FIELDS = (  # of a published text_config, as far as they mean something here
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "head_dim", "hidden_act", "rms_norm_eps", "max_position_embeddings"),
    *("rope_theta", "rope_scaling", "initializer_range", "attention_bias", "mlp_bias"),
    *("attention_dropout", "tie_word_embeddings"),
)
_AUTO_MAP = {
    "AutoConfig": "configuration_prismatic.OpenVLAConfig",
    "AutoModelForVision2Seq": "modeling_prismatic.OpenVLAForActionPrediction",
}


@draccus.decode.register(LlamaConfig)
def _decode_llama(value: dict[str, Any], path: object = ()) -> LlamaConfig:
    unknown = sorted(set(value) - set(_LLAMA_FIELDS) - {"rope_parameters"})
    if unknown:
        raise ValueError(f"unknown keys of the language model: {some(unknown)}")
    return llama_config(**copy.deepcopy(value))  # transformers writes into it


@draccus.encode.register(LlamaConfig)
def _encode_llama(llama: LlamaConfig) -> dict[str, Any]:
    rope = dict(llama.rope_parameters or {})
    value = {name: getattr(llama, name, None) for name in _LLAMA_FIELDS}
    value["rope_theta"] = rope.pop("rope_theta", None)
    value["rope_scaling"] = None if rope.get("rope_type", "default") == "default" else rope
    return {name: entry for name, entry in value.items() if entry is not None}


def load_model_config(path: Path) -> OpenVLAConfig:
    """Read configs/vla/model_*.yaml. Unknown keys and bad values are UserErrors."""
    if not Path(path).is_file():
        raise UserError(
            f"no model config {path}: expected a YAML such as configs/vla/model_cpu.yaml"
        )
    return decode_config(OpenVLAConfig, read_yaml(path), str(path))


def read_config(folder: Path) -> OpenVLAConfig:
    """Read `folder`/config.json, with `towers.json` beside it where the file itself has no towers,
    and `dataset_statistics.json`, which replaces norm_stats where it exists (as published). Of an
    OpenVLA-OFT folder the files beside the weights tell the rest.

    The long dumps that transformers writes are fine: fields that mean nothing here are skipped.
    """
    return read_config_file(checkpoint_folder(folder))


def read_config_file(folder: Path) -> OpenVLAConfig:
    """`read_config` of a folder that may hold anything else, such as an adapter."""
    value = read_object(folder / "config.json")
    if value.get("model_type", "openvla") not in _MODEL_TYPES:
        kind = short(repr(value["model_type"]))
        raise UserError(f"{folder} is a {kind} checkpoint, not an OpenVLA (model_type 'openvla')")
    if not value.get("towers") and (folder / "towers.json").is_file():
        towers = read_object(folder / "towers.json").get("towers")
        if not isinstance(towers, list):
            raise UserError(f"{folder / 'towers.json'}: expected an object with a list `towers`")
        value = {**value, "towers": towers}
    if (folder / "dataset_statistics.json").is_file():
        statistics = read_object(folder / "dataset_statistics.json")
        value = {**value, "norm_stats": statistics}
        if not all(map(_is_object, statistics.values())):
            raise UserError(f"{folder / 'dataset_statistics.json'}: {_BY_NAME}")
    config = config_from_json(value, str(folder / "config.json"))
    return config if "invact" in value else oft_config(config, folder)


def config_from_json(value: dict[str, Any], source: str) -> OpenVLAConfig:
    """The fields of config.json -> OpenVLAConfig. `source` names the file in errors."""
    known = {f.name for f in fields(OpenVLAConfig)}
    try:
        plain = {k: v for k, v in value.items() if k in known and v is not None}
        statistics = plain.get("norm_stats", {})
        if not isinstance(statistics, dict) or not all(map(_is_object, statistics.values())):
            raise ValueError(f"norm_stats: {_BY_NAME}")
        if "use_fused_vision_backbone" not in plain:  # as the published configuration class decides
            name = str(plain.get("vision_backbone_id", ""))
            plain["use_fused_vision_backbone"] = name.startswith(("dinosiglip", "dinoclip"))
        count = 2 if plain["use_fused_vision_backbone"] else 1  # further towers are never looked at
        plain["timm_model_ids"] = plain.get("timm_model_ids", [])[:count]
        plain["towers"] = [_tower(tower) for tower in plain.get("towers", [])[:count]]
        text = plain.get("text_config", {})  # transformers 5 writes the angles as rope_parameters
        known = (*_LLAMA_FIELDS, "rope_parameters")
        plain["text_config"] = {k: v for k, v in text.items() if k in known and v is not None}
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        raise UserError(f"{source}: {short(error)}") from error
    return decode_config(OpenVLAConfig, plain, source)


def config_to_json(config: OpenVLAConfig) -> dict[str, Any]:
    """OpenVLAConfig -> config.json, with what stock OpenVLA code expects to find there."""
    value = draccus.encode(config)
    towers = [{**tower.pop("options"), **tower} for tower in value.pop("towers")]
    text = {"model_type": "llama", "pad_token_id": config.pad_token_id, **value["text_config"]}
    return {
        "architectures": ["OpenVLAForActionPrediction"],
        "auto_map": _AUTO_MAP,
        "model_type": "openvla",
        **value,
        "text_config": text,
        **({"towers": towers} if towers else {}),
    }


def with_latent_tokens(
    config: OpenVLAConfig, codebook_size: int, taken: Collection[int] = ()
) -> OpenVLAConfig:
    """The config with a row for each of `codebook_size` codes: those it has, then the first free ones.

    taken: unused rows that belong to somebody else's added tokens. UserError if too few are free.
    """
    known, rows = config.invact.latent_token_ids, config.text_config.vocab_size
    unused = [r for r in range(config.first_free_row, rows) if r not in taken or r in known]
    free = [row for row in unused if row not in known]
    wanted = codebook_size - len(known)
    if codebook_size < 1 or wanted > len(free):
        where = f" {unused[0]}..{unused[-1]}" if unused else ""
        raise UserError(
            f"codebook of {codebook_size} codes does not fit the {len(unused)} unused vocabulary "
            f"rows{where}: label with a smaller codebook"
        )
    ids = (*known, *free[: max(0, wanted)])
    return replace(config, invact=replace(config.invact, latent_token_ids=ids))


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _tower(value: dict[str, Any]) -> dict[str, Any]:
    """A tower as it stands in JSON: further arguments of the VisionTransformer beside the others, and
    sizes that may be pairs."""
    known = {f.name for f in fields(TowerConfig)}
    plain = {k: v for k, v in value.items() if k in known}
    more = {k: v for k, v in value.items() if k not in known}
    for name in ("img_size", "patch_size"):
        if isinstance(plain.get(name), list):
            sides = set(plain[name])
            if len(sides) != 1:
                raise ValueError(f"tower {name} must be square, got {short(str(plain[name]))}")
            plain[name] = sides.pop()
    return {**plain, "options": {**value.get("options", {}), **more}}
