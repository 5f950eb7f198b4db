"""The one door to files of torch.save: tensors come out, and no code of the file runs.

A .pt file is a pickle. Whoever reads one that a stranger made lets him run code, unless the reader
rebuilds tensors and plain containers alone. Three kinds pass for .pt files: zip archives (since torch
1.6), bare pickles (before) and tar files (before 0.1.10); a TorchScript archive is a zip with code in
it, which torch.load hands on to another loader. Refused here: TorchScript and tar files always, bare
pickles unless asked for.
"""

import io
import pickle
import tarfile
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch._utils import _rebuild_parameter, _rebuild_tensor_v2

from invact_vla.errors import UserError
from invact_vla.training.files import refuse_pointer

_ZIP = b"PK\x03\x04"
_SCRIPT_RECORD = "constants.pkl"  # torch.load takes a zip that has it for TorchScript


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A state dict saved by torch.save as a zip archive, memory-mapped, without the `module.` prefix
    that DistributedDataParallel gives.

    UserError if the file is missing, damaged, of another kind, or holds anything but named tensors.
    """
    path = Path(path)
    if _kind_of(path) != "zip":
        raise UserError(f"{path} is a pickle of torch before 1.6: save it again with a newer torch")
    try:
        value = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError) as error:
        why = "damaged, or it holds more than tensors"
        raise UserError(f"{path} is {why}: {_first_line(error)}") from error
    if not isinstance(value, dict) or not value or not all(map(_is_named_tensor, value.items())):
        raise UserError(f"{path}: expected a state dict of tensors, got {type(value).__name__}")
    return without_prefix(value)


def read_research_pickle(path: Path) -> Any:
    """A training checkpoint with whatever it holds; every object but tensors and plain containers
    becomes inert. Bare pickles are read as well. UserError as in `read_tensors`."""
    _kind_of(Path(path))
    try:
        return torch.load(path, map_location="cpu", weights_only=False, pickle_module=_RESTRICTED)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError) as error:
        raise UserError(f"{path} is not a whole weights file: {_first_line(error)}") from error


def without_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names without the `module.` of DistributedDataParallel."""
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def _kind_of(path: Path) -> str:
    """'zip' or 'pickle'; UserError for every other kind of file."""
    if not path.is_file():
        raise UserError(f"no file {path}")
    refuse_pointer(path)
    with open(path, "rb") as file:
        is_zip = file.read(len(_ZIP)) == _ZIP
    if not is_zip:
        if tarfile.is_tarfile(path):
            raise UserError(f"{path} is a tar file of torch before 0.1.10: save it again")
        return "pickle"
    try:
        records = torch._C.PyTorchFileReader(str(path)).get_all_records()
    except RuntimeError as error:
        raise UserError(f"{path} is not a whole weights file: {_first_line(error)}") from error
    if _SCRIPT_RECORD in records:
        raise UserError(
            f"{path} is a TorchScript archive, which holds code: give the weights alone, as "
            "`torch.save(model.state_dict(), path)` writes them"
        )
    return "zip"


def _is_named_tensor(item: tuple[Any, Any]) -> bool:
    return isinstance(item[0], str) and isinstance(item[1], Tensor)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class Inert(dict):
    """Stands for an object of a class that is not rebuilt; keeps nothing that it is given."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> "Inert":
        return self


class _TensorUnpickler(pickle.Unpickler):
    """Knows tensors and ordered dictionaries; every other name becomes Inert."""

    ALLOWED: ClassVar[dict[tuple[str, str], Any]] = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor_v2,
        ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
        ("torch", "Size"): torch.Size,
    }

    def find_class(self, module: str, name: str) -> Any:
        return self.ALLOWED.get((module, name), Inert)


def _load(file: io.BufferedIOBase, **kwargs: Any) -> Any:
    return _TensorUnpickler(file, **kwargs).load()


_RESTRICTED = SimpleNamespace(__name__="restricted", Unpickler=_TensorUnpickler, load=_load)
