"""What a checkpoint path is, judged by its files before any weight is read.

A published fine-tune is more than an OpenVLA folder when its actions come from files beside the
weights, and less when it holds an adapter alone. Rolled out as a plain checkpoint each of them
scores 0 without an error, so each is refused by name.
"""

from pathlib import Path
from typing import Any

from invact_vla.core.errors import UserError
from invact_vla.core.files import read_json
from invact_vla.untrusted.torch_files import INDEX, SINGLE

MODEL = "model"  # subfolder of a run that holds the checkpoint
ADAPTER = "adapter"  # subfolder of a run that holds a LoRA adapter alone
ADAPTER_CONFIG = "adapter_config.json"
WEIGHTS = (SINGLE, INDEX, "model-*-of-*.safetensors")  # patterns of a saved model's weights
OFT_FILES = ("action_head--*", "proprio_projector--*")  # OpenVLA-OFT's parts beside the weights
_OFT_VARIANTS = {  # parts of OpenVLA-OFT that nothing here runs
    "noisy_action_projector--*": "a diffusion head",
    "vision_backbone--*": "FiLM vision towers",
}
_UNIVLA_FILES = ("action_decoder*", "lam*.ckpt", "latent_action_model*")
_UNIVLA_TOKEN = "<ACT_0>"


def checkpoint_folder(path: Path) -> Path:
    """The checkpoint folder that a path means: itself, or `model/` inside a run folder.

    UserError if nothing lies there, or if it is another kind of folder than an OpenVLA's."""
    path = Path(path)
    if not path.is_dir():
        what = "is a file, not a folder" if path.exists() else "does not exist"
        if not path.exists() and not path.is_absolute() and len(path.parts) == 2:
            what += f" (a name on the hub is fetched with `hf download {path} --local-dir FOLDER`)"
        raise UserError(
            f"no checkpoint folder {path}: it {what}; expected a folder with config.json and "
            f"safetensors, or a run folder that holds {MODEL}/"
        )
    places = [place for place in (path, path / MODEL) if (place / "config.json").is_file()]
    for name in () if places else (ADAPTER, "lora_adapter"):  # ours, OpenVLA-OFT's
        if is_adapter(path / name):
            _refuse_adapter(path / name)
    if not places and (path / "provenance.json").is_file():
        raise UserError(
            f"the run {path} holds no {MODEL}/: run its stage to the end, or give another run"
        )
    refuse_foreign(places[0] if places else path)
    if not places:
        raise UserError(
            f"{path} holds neither config.json nor {MODEL}/config.json: give a checkpoint folder, or "
            "the run that made one"
        )
    return places[0]


def adapter_folder(path: Path) -> Path:
    """The adapter folder that a path means: itself, or `adapter/` inside a run folder."""
    found = [folder for folder in (Path(path), Path(path) / ADAPTER) if is_adapter(folder)]
    if not found:
        raise UserError(
            f"no adapter folder {path}: expected {ADAPTER_CONFIG} and the adapter's weights in it, and "
            f"no model, or a run folder that holds {ADAPTER}/"
        )
    return found[0]


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no model."""
    return (Path(folder) / ADAPTER_CONFIG).is_file() and not _found(Path(folder), WEIGHTS)


def refuse_foreign(folder: Path) -> None:
    """UserError if more or less than an OpenVLA lies in `folder`: it says what, and what to do."""
    if (folder / ADAPTER_CONFIG).is_file():
        _refuse_adapter(folder)
    for pattern, what in _OFT_VARIANTS.items():
        if names := _found(folder, (pattern,)):
            raise UserError(
                f"{folder} is an OpenVLA-OFT checkpoint with {what} ({names[0]}), which is not "
                "supported: give one with the L1 head, or a plain OpenVLA"
            )
    if names := _found(folder, _UNIVLA_FILES):
        raise UserError(
            f"{folder} is a UniVLA checkpoint: its actions come from a latent-action decoder "
            f"({', '.join(names)}), which is not read here, and without it they mean nothing: give "
            "an OpenVLA or OpenVLA-OFT folder; to start training from these weights, copy the "
            "folder without the decoder"
        )
    if _has_latent_words(folder):
        raise UserError(
            f"{folder} is a UniVLA checkpoint: its tokenizer has latent-action tokens "
            f"({_UNIVLA_TOKEN} ...), which are not robot actions: give an OpenVLA or OpenVLA-OFT "
            "folder; to start training from these weights, take these tokens out of "
            "added_tokens.json and tokenizer_config.json"
        )


def is_checkpoint(folder: Path) -> bool:
    """Whether an OpenVLA was saved here."""
    return _object(folder / "config.json").get("model_type") == "openvla"


def _refuse_adapter(folder: Path) -> None:
    value = read_json(folder / ADAPTER_CONFIG)
    base = value.get("base_model_name_or_path") if isinstance(value, dict) else None
    base = f" (made on {base})" if base else ""
    if is_adapter(folder):
        raise UserError(
            f"{folder} is a LoRA adapter{base}, not a whole checkpoint: merge it into its base with "
            f"`invact vla merge {folder} --base BASE --out MERGED` and give MERGED"
        )
    raise UserError(
        f"{folder} holds a whole model and a LoRA adapter{base}: it does not say whether the adapter "
        "is merged already; move the adapter_* files away if it is, the weights if it is not"
    )


def _has_latent_words(folder: Path) -> bool:
    """Whether the tokenizer knows UniVLA's latent tokens, in a folder that this project did not
    write (ours keeps latent tokens in unused rows and says so in config.json)."""
    config = _object(folder / "config.json")
    if "invact" in config:
        return False
    decoder = _object(folder / "tokenizer_config.json").get("added_tokens_decoder") or {}
    words = {v.get("content") for v in decoder.values() if isinstance(v, dict)}
    return _UNIVLA_TOKEN in words | set(_object(folder / "added_tokens.json"))


def _object(path: Path) -> dict[str, Any]:
    value = read_json(path) if path.is_file() else {}
    return value if isinstance(value, dict) else {}


def _found(folder: Path, patterns: tuple[str, ...]) -> list[str]:
    """Names below `folder` that fit a pattern, in order."""
    return sorted({p.relative_to(folder).as_posix() for g in patterns for p in folder.glob(g)})
