"""config.json of a folder <-> OpenVLAConfig, and the YAML of configs/vla/model_*.yaml."""

from collections.abc import Collection
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from invact_vla.core.errors import UserError
from invact_vla.core.files import read_json
from invact_vla.core.limits import short
from invact_vla.openvla.checkpoints.folder import checkpoint_folder
from invact_vla.openvla.checkpoints.oft_files import oft_config
from invact_vla.openvla.config import InvActConfig, OpenVLAConfig, TextConfig, TowerConfig
from invact_vla.openvla.head_configs import head_from_json

_MODEL_TYPES = ("openvla", "prismatic")
_NESTED = {"text_config", "towers", "invact"}
_AUTO_MAP = {
    "AutoConfig": "configuration_prismatic.OpenVLAConfig",
    "AutoModelForVision2Seq": "modeling_prismatic.OpenVLAForActionPrediction",
}


def load_model_config(path: Path) -> OpenVLAConfig:
    """Read configs/vla/model_*.yaml. Unknown keys and bad values are UserErrors."""
    from invact_vla.config.command import parse_config

    if not Path(path).is_file():
        raise UserError(
            f"no model config {path}: expected a YAML such as configs/vla/model_cpu.yaml"
        )
    return parse_config(OpenVLAConfig, ["--config_path", str(path)])


def read_config(folder: Path) -> OpenVLAConfig:
    """Read `folder`/config.json, with `towers.json` beside it where the file itself has no towers,
    and `dataset_statistics.json`, which replaces norm_stats where it exists (as published). Of an
    OpenVLA-OFT folder the files beside the weights tell the rest.

    The long dumps that transformers writes are fine: fields that mean nothing here are skipped.
    """
    return read_config_file(checkpoint_folder(folder))


def read_config_file(folder: Path) -> OpenVLAConfig:
    """`read_config` of a folder that may hold anything else, such as an adapter."""
    value = read_json(folder / "config.json")
    if not isinstance(value, dict):
        raise UserError(f"{folder / 'config.json'}: expected an object, got {type(value).__name__}")
    if value.get("model_type", "openvla") not in _MODEL_TYPES:
        kind = short(repr(value["model_type"]))
        raise UserError(f"{folder} is a {kind} checkpoint, not an OpenVLA (model_type 'openvla')")
    if not value.get("towers") and (folder / "towers.json").is_file():
        description = read_json(folder / "towers.json")
        if not isinstance(description, dict) or not isinstance(description.get("towers"), list):
            raise UserError(f"{folder / 'towers.json'}: expected an object with a list `towers`")
        value = {**value, "towers": description["towers"]}
    if (folder / "dataset_statistics.json").is_file():
        value = {**value, "norm_stats": read_json(folder / "dataset_statistics.json")}
    config = config_from_json(value, str(folder / "config.json"))
    return config if "invact" in value else oft_config(config, folder)


def config_from_json(value: dict[str, Any], source: str) -> OpenVLAConfig:
    """The fields of config.json -> OpenVLAConfig. `source` names the file in errors."""
    try:
        towers = tuple(_tower(t, source) for t in value.get("towers") or ())
        plain = {f.name: value[f.name] for f in fields(OpenVLAConfig) if f.name in value}
        plain = {k: v for k, v in plain.items() if k not in _NESTED and v is not None}
        if "use_fused_vision_backbone" not in plain:  # as the published configuration class decides
            name = str(plain.get("vision_backbone_id", ""))
            plain["use_fused_vision_backbone"] = name.startswith(("dinosiglip", "dinoclip"))
        count = 2 if plain["use_fused_vision_backbone"] else 1  # further towers are never looked at
        plain["timm_model_ids"] = tuple(plain.get("timm_model_ids", ()))[:count]
        return OpenVLAConfig(
            **_tuples(plain),
            text_config=_text_config(value.get("text_config") or {}),
            towers=towers[:count],
            invact=_invact(value.get("invact") or {}),
        )
    except UserError:
        raise
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
        raise UserError(f"{source}: {short(error)}") from error


def config_to_json(config: OpenVLAConfig) -> dict[str, Any]:
    """OpenVLAConfig -> config.json, with what stock OpenVLA code expects to find there."""
    value = asdict(config)
    value["text_config"] = {
        "model_type": "llama",
        "pad_token_id": config.pad_token_id,
        **{k: v for k, v in value["text_config"].items() if v is not None},
    }
    value["invact"]["head"] = config.invact.head.to_json()
    value["towers"] = [_tower_to_json(tower) for tower in value["towers"]]
    if not value["towers"]:
        del value["towers"]
    return {
        "architectures": ["OpenVLAForActionPrediction"],
        "auto_map": _AUTO_MAP,
        "model_type": "openvla",
        **value,
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


def _tower(value: dict[str, Any], source: str) -> TowerConfig:
    if not isinstance(value, dict):
        raise UserError(f"{source}: a tower must be an object, got {type(value).__name__}")
    known = {f.name for f in fields(TowerConfig)} - {"options"}
    options = {**value.get("options", {}), **{k: v for k, v in value.items() if k not in known}}
    options.pop("options", None)
    plain = {k: v for k, v in value.items() if k in known}
    for name in ("img_size", "patch_size"):
        if isinstance(plain.get(name), list):
            sides = set(plain[name])
            if len(sides) != 1:
                raise UserError(
                    f"{source}: tower {name} must be square, got {short(str(plain[name]))}"
                )
            plain[name] = sides.pop()
    return TowerConfig(**plain, options=options)


def _tower_to_json(value: dict[str, Any]) -> dict[str, Any]:
    options = value.pop("options")
    return {**value, **options}


def _text_config(value: dict[str, Any]) -> TextConfig:
    known = {f.name for f in fields(TextConfig)}
    plain = {k: v for k, v in value.items() if k in known and v is not None}
    rope = dict(value.get("rope_parameters") or {})  # transformers 5 writes the angles here
    if "rope_theta" in rope:
        plain["rope_theta"] = rope.pop("rope_theta")
    if rope.get("rope_type", "default") != "default":
        plain["rope_scaling"] = rope
    return TextConfig(**plain)


def _invact(value: dict[str, Any]) -> InvActConfig:
    unknown = set(value) - {f.name for f in fields(InvActConfig)}
    if unknown:
        raise ValueError(f"unknown keys under invact: {sorted(unknown)}")
    head = {"head": head_from_json(value["head"])} if "head" in value else {}
    return InvActConfig(**{**_tuples(value), **head})


def _tuples(value: dict[str, Any]) -> dict[str, Any]:
    """JSON has lists where configs have tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
