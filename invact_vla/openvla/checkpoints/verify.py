"""`invact vla verify`: hold a checkpoint against recorded inputs and outputs of a reference program.

The folder has the weights and config, `inputs.safetensors` and `expected.safetensors` with any of the
tensors of outputs.py. An adapter folder is held against them on its base, through the adapter and
merged; its inputs may lie with the base.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from invact_vla.core.agreement import exit_code, print_agreement
from invact_vla.core.errors import UserError
from invact_vla.openvla.adapters.adapter import load_on_base
from invact_vla.openvla.adapters.lora import merge
from invact_vla.openvla.checkpoints.folder import checkpoint_folder, is_adapter
from invact_vla.openvla.checkpoints.outputs import NAMES, compute, pixels_of_picture
from invact_vla.openvla.checkpoints.weights import from_pretrained
from invact_vla.openvla.model import OpenVLA
from invact_vla.untrusted.torch_files import read_safetensors

PICTURE_TOLERANCE = 1e-3  # of pixel_values made from a raw picture
INPUTS, EXPECTED = "inputs.safetensors", "expected.safetensors"


@dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """What to hold against its recorded outputs."""

    POSITIONAL: ClassVar[str] = "folder"

    folder: Path  # checkpoint, adapter or OpenVLA-OFT folder with recorded inputs and outputs
    base: Path | None = None  # of an adapter folder: the checkpoint that it was trained on
    merged: bool | None = None  # of an adapter folder: true merged, false not merged; null: both


def main(config: VerifyConfig) -> int:
    """Print the largest error of each recorded tensor; 0 when all agree, 1 when one does not."""
    if not config.folder.is_dir():
        raise UserError(f"no folder {config.folder}")
    folder = config.folder if is_adapter(config.folder) else checkpoint_folder(config.folder)
    if is_adapter(folder) and config.base is None:
        raise UserError(
            f"{folder} is a LoRA adapter: give the checkpoint that it was trained on with --base"
        )
    expected = read_safetensors(folder / EXPECTED)
    unknown = set(expected) - NAMES
    if unknown or not expected:
        raise UserError(
            f"{folder / EXPECTED}: unknown tensors {sorted(unknown)}; known: {sorted(NAMES)}"
        )
    inputs = read_safetensors(_inputs(folder, config.base))
    agree: list[bool] = []
    for way, model in _models(config, folder):
        if way:
            print(f"{way}:")
        computed = compute(model, inputs, expected)
        agree += print_agreement(computed, {n: expected[n] for n in computed})
    pixels = pixels_of_picture(folder, inputs)
    if pixels is not None and "pixel_values" in inputs:
        name = "pixel_values"
        agree += print_agreement({name: pixels}, {name: inputs[name]}, PICTURE_TOLERANCE)
    return exit_code(agree)


def _inputs(folder: Path, base: Path | None) -> Path:
    """The recorded inputs: the folder's own, or those of an adapter's base."""
    if base is None or (folder / INPUTS).is_file():
        return folder / INPUTS
    return checkpoint_folder(base) / INPUTS


def _models(config: VerifyConfig, folder: Path) -> Iterator[tuple[str, OpenVLA]]:
    """(what is held against the outputs, model), one after the other."""
    if not is_adapter(folder):
        if config.base is not None or config.merged is not None:
            raise UserError(f"{folder} is no adapter folder: --base and --merged are for adapters")
        yield "", from_pretrained(folder)
        return
    assert config.base is not None
    model = load_on_base(config.base, folder)
    if config.merged is not True:
        yield "through the adapter", model
    if config.merged is not False:
        yield "merged", merge(model)
