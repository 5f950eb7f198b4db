"""`invact vla export FOLDER --out OUT`: a checkpoint in the layout that other OpenVLA programs read.

Published keys in bfloat16 shards, tokenizer and processor files, statistics, OpenVLA-OFT's own files for
its head, and a model card. An adapter folder is merged into its base first. `--push_to_hub owner/name`
uploads what was written.
"""

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch

from invact_vla.config.yaml_text import read_yaml
from invact_vla.core.errors import UserError
from invact_vla.core.files import atomic_folder
from invact_vla.core.hub import push_folder
from invact_vla.openvla.adapters.merge import load_merged
from invact_vla.openvla.checkpoints.checkpoint import VLACheckpoint, load_pretrained
from invact_vla.openvla.checkpoints.folder import checkpoint_folder, is_adapter, is_checkpoint
from invact_vla.openvla.checkpoints.model_card import model_card
from invact_vla.openvla.checkpoints.stock import beside_stock, beyond_stock, save_stock

logger = logging.getLogger(__name__)
CARD = "README.md"


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What to export, and where to."""

    POSITIONAL: ClassVar[str] = "folder"

    folder: Path  # checkpoint folder, the run that holds one, or an adapter folder
    out: Path  # new folder
    base: Path | None = None  # checkpoint that an adapter belongs to
    dtype: Literal["bfloat16", "float32"] = "bfloat16"  # of the weights on disk
    max_shard_gb: float = 5.0  # largest weights file
    beyond_stock: bool = False  # also export what stock code would silently leave out
    overwrite: bool = False  # replace an earlier export in --out
    license: str | None = None  # for the model card, such as mit; null: none stated
    push_to_hub: str | None = None  # "owner/name" to upload to; needs `hf auth login`
    private: bool = True  # whether a new repository on the hub is private

    def __post_init__(self) -> None:
        if self.max_shard_gb <= 0:
            raise ValueError(f"max_shard_gb must be positive, got {self.max_shard_gb}")
        if self.push_to_hub is not None and not re.fullmatch(
            r"[\w.-]+/[\w.-]+", self.push_to_hub, re.ASCII
        ):
            raise ValueError(
                f'push_to_hub: expected "owner/name" on the hub, got {self.push_to_hub!r}'
            )


def main(config: ExportConfig) -> Path:
    """Read, check, write, upload; returns the folder written."""
    _check_out(config)
    pretrained, run = _read(config)
    beyond = beyond_stock(pretrained.config)
    if beyond and not config.beyond_stock:
        raise UserError(
            f"{config.folder} has {', '.join(beyond)}: stock OpenVLA and OpenVLA-OFT code would leave "
            "that out without a word; to export it for this project's code: --beyond_stock true"
        )
    model = pretrained.model.to(getattr(torch, config.dtype))
    with atomic_folder(config.out) as temporary:
        save_stock(pretrained, temporary, int(config.max_shard_gb * 1e9), _steps(run))
        card = model_card(
            (config.push_to_hub or config.out.name).rpartition("/")[2],
            pretrained.config,
            parameters=sum(p.numel() for p in model.parameters()),
            dtype=config.dtype,
            license_name=config.license,
            run=run,
            beside_stock=beside_stock(pretrained.config),
            beyond_stock=beyond,
        )
        (temporary / CARD).write_text(card)
    logger.info("%s: exported %s", config.out, config.folder)
    if config.push_to_hub is not None:
        address = push_folder(
            config.out, config.push_to_hub, private=config.private, message="OpenVLA checkpoint"
        )
        logger.info("pushed to %s", address)
    return config.out


def _check_out(config: ExportConfig) -> None:
    """UserError if something is in the way of the new folder."""
    source, out = config.folder.resolve(), config.out.resolve()
    inputs = [source, source / "model", *([config.base.resolve()] if config.base else [])]
    if out in inputs or out in source.parents:
        raise UserError(f"--out {config.out} is, or holds, an input: give a new folder")
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists() and not (config.overwrite and is_checkpoint(out)):
        hint = ", or --overwrite true to replace it" if is_checkpoint(out) else ""
        raise UserError(f"--out {config.out} exists and is not empty: give a new folder{hint}")


def _read(config: ExportConfig) -> tuple[VLACheckpoint, Path | None]:
    """The whole model, and the run that made it where one is known."""
    if not is_adapter(config.folder):
        if config.base is not None:
            raise UserError(
                f"{config.folder} is no adapter folder, so --base {config.base} has no meaning: leave "
                "it out"
            )
        folder = checkpoint_folder(config.folder)
        return load_pretrained(folder), _run_of(folder)
    if config.base is None:
        raise UserError(
            f"{config.folder} is an adapter: give the checkpoint that it belongs to as --base"
        )
    return load_merged(config.base, config.folder), _run_of(config.folder)


def _run_of(folder: Path) -> Path | None:
    return folder.parent if (folder.parent / "provenance.json").is_file() else None


def _steps(run: Path | None) -> str:
    """Training steps of a run, for the names of OFT's files; "latest" where they are not known."""
    path = None if run is None else run / "config.yaml"
    if path is None or not path.is_file():
        return "latest"
    value = read_yaml(path)
    loop = value.get("loop") if isinstance(value, dict) else None
    steps = loop.get("steps") if isinstance(loop, dict) else None
    return str(steps) if isinstance(steps, int) else "latest"
