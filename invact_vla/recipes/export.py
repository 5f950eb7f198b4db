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
from invact_vla.core.run_folder import run_of
from invact_vla.openvla.adapters.merge import load_merged
from invact_vla.openvla.checkpoints.checkpoint import VLACheckpoint, load_pretrained
from invact_vla.openvla.checkpoints.folder import checkpoint_folder, is_adapter, is_checkpoint
from invact_vla.openvla.checkpoints.stock import beyond_stock, model_card, save_stock
from invact_vla.untrusted.torch_files import check_finite

logger = logging.getLogger(__name__)


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
        name = self.push_to_hub
        if name is not None and not re.fullmatch(r"[\w.-]+/[\w.-]+", name, re.ASCII):
            raise ValueError(f'push_to_hub: expected "owner/name" on the hub, got {name!r}')


def main(config: ExportConfig) -> Path:
    """Read, check, write, upload; returns the folder written."""
    _check_out(config)
    pretrained, run = _read(config)
    check_finite(pretrained.model.state_dict(), config.folder)
    beyond = beyond_stock(pretrained.config)
    if beyond and not config.beyond_stock:
        raise UserError(
            f"{config.folder} has {', '.join(beyond)}: stock OpenVLA and OpenVLA-OFT code would leave "
            "that out without a word; to export it for this project's code: --beyond_stock true"
        )
    model = pretrained.model.to(getattr(torch, config.dtype))
    with atomic_folder(config.out) as temporary:
        save_stock(pretrained, temporary, int(config.max_shard_gb * 1e9), _steps(run))
        name = (config.push_to_hub or config.out.name).rpartition("/")[2]
        card = model_card(
            name, pretrained.config, parameters=sum(p.numel() for p in model.parameters()),
            dtype=config.dtype, license_name=config.license, run=run,
        )  # fmt: skip
        (temporary / "README.md").write_text(card)
    logger.info("%s: exported %s", config.out, config.folder)
    if config.push_to_hub is not None:
        logger.info("pushed to %s", push_folder(config.out, config.push_to_hub, config.private))
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
    folder, base = config.folder, config.base
    if not is_adapter(folder):
        if base is not None:
            raise UserError(
                f"{folder} is no adapter folder, so --base {base} has no meaning: leave it out"
            )
        folder = checkpoint_folder(folder)
    elif base is None:
        raise UserError(f"{folder} is an adapter: give the checkpoint that it belongs to as --base")
    pretrained = load_pretrained(folder) if base is None else load_merged(base, folder)
    return pretrained, run_of(folder) if run_of(folder) != folder else None


def _steps(run: Path | None) -> str:
    """Training steps of a run, for the names of OFT's files; "latest" where they are not known."""
    path = None if run is None else run / "config.yaml"
    value = read_yaml(path) if path is not None and path.is_file() else None
    loop = value.get("loop") if isinstance(value, dict) else None
    steps = loop.get("steps") if isinstance(loop, dict) else None
    return str(steps) if isinstance(steps, int) else "latest"
