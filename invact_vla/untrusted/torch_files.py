"""The one door to weight files: tensors come out, and no code of a file runs.

A .pt file is a pickle beside raw bytes. torch.load has run code of such files in several versions and
ways (TorchScript archives, tar files, faults of weights_only), so they are read here: the pickle as
data (inert_pickle.py), the tensors from the mapped file after their sizes are checked. Three kinds
pass for .pt files: zip archives (since torch 1.6), bare pickles (before) and tar files (before 0.1.10).
Refused are archives that hold code and tar files always, bare pickles unless asked for.
"""

import io
import math
import re
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from invact_vla.core.errors import UserError
from invact_vla.core.limits import (
    inside,
    one_line,
    parse_json,
    read_text,
    refuse_pointer,
    short,
    some,
)
from invact_vla.untrusted.inert_pickle import Call, read_pickle

CPU = torch.device("cpu")
MAX_PICKLE = 64 << 20  # bytes of the pickle in an archive
MAX_REPEATS = 16  # bytes of all tensors over those of the file: tied weights are there twice
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_OTHER_FORMATS = ("pytorch_model*.bin*", "*.bin", "checkpoints/*.pt", "*.pt", "*.pth", "*.gguf")
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_MAGIC = 0x1950A86A20F9469CFC6C  # of bare pickles
_TENSOR, _PARAMETER = "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"
_TYPES = {
    "Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16,
    "Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8,
    "Byte": torch.uint8, "Bool": torch.bool, "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
}  # fmt: skip

_WRAPPERS = re.compile(r"(module\.|_orig_mod\.)+")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A state dict saved by torch.save as a zip archive, memory-mapped, without the `module.` prefix
    that DistributedDataParallel gives.

    UserError if the file is missing, damaged, of another kind, or holds anything but named tensors.
    """
    path = Path(path)
    if _kind_of(path) != "zip":
        raise UserError(
            f"{path} is damaged, or a pickle of torch before 1.6: fetch it again, or save it again "
            "with a newer torch"
        )
    with _faults(path):
        value = _read_zip(path, copy=False)
    if not isinstance(value, dict) or not value:
        raise UserError(f"{path}: expected a state dict of tensors, got {type(value).__name__}")
    for name, entry in value.items():
        if not isinstance(name, str) or not isinstance(entry, Tensor):
            got = entry.name if isinstance(entry, Call) else type(entry).__name__
            raise UserError(
                f"{path} holds more than tensors: expected a state dict, its entry "
                f"{short(str(name))} is {short(got)}"
            )
    return without_prefix(value)


def read_research_pickle(path: Path) -> Any:
    """A training checkpoint with whatever it holds; every object but tensors and plain containers
    is a Call, which does nothing. Bare pickles are read as well. UserError as in `read_tensors`."""
    path = Path(path)
    read = _read_zip if _kind_of(path) == "zip" else _read_bare
    with _faults(path):
        return read(path)


def read_safetensors(
    path: Path, device: torch.device = CPU, dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """All tensors of one safetensors file; a missing or damaged one is a UserError. Each is changed to
    `dtype` as it comes, so that a file in another number format is never held twice; whole numbers,
    whose scale nobody knows, are a UserError then."""
    found = {}
    with _opened(Path(path), device) as file:
        for name in list(file.keys()):
            tensor = file.get_tensor(name)
            if dtype is not None and not tensor.is_floating_point():
                raise UserError(
                    f"{path} holds {short(name)} as {tensor.dtype}, expected floating-point weights: "
                    "these were quantized, give those from before"
                )
            found[name] = tensor.to(dtype=dtype)
    return found


def stored_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes in a safetensors file, by its header alone. UserError as in `read_safetensors`."""
    with _opened(Path(path), CPU) as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in list(file.keys())}


def differences(found: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]]) -> str:
    """How tensors differ from the names and shapes that are expected, in words; "" where they do not."""
    keys = {"missing": shapes.keys() - found.keys(), "unexpected": found.keys() - shapes.keys()}
    words = [f"{len(n)} {what} key(s): {some(sorted(n))}" for what, n in keys.items() if n]
    wrong = [
        f"{name} is {tuple(found[name].shape)}, expected {tuple(shapes[name])}"
        for name in sorted(shapes.keys() & found.keys())
        if tuple(found[name].shape) != tuple(shapes[name])
    ]
    words += [f"{len(wrong)} key(s) of another shape: {some(wrong)}"] if wrong else []
    return "; ".join(words)


def check_finite(weights: Mapping[str, Tensor], source: Path | str) -> None:
    """UserError that names `source` and the weights that hold NaN or infinity."""
    bad = [n for n, t in weights.items() if not torch.isfinite(t.sum(dtype=torch.float32))]
    if bad:
        raise UserError(
            f"{source} holds NaN or infinity in {some(bad)}: its training diverged, or it is damaged; "
            "give an earlier checkpoint"
        )


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder: the single one, or all that its index names. UserError if one
    is missing or lies outside of the folder."""
    folder = Path(folder)
    if (folder / SINGLE).is_file():
        return [inside(folder, SINGLE)]
    if not (folder / INDEX).is_file():
        found = sorted(
            {p.relative_to(folder).as_posix() for g in _OTHER_FORMATS for p in folder.glob(g)}
        )
        instead = f"; {found[0]} is not read: save the model as safetensors" if found else ""
        raise UserError(
            f"no weights in {folder}: expected {SINGLE} or {INDEX} with its shards{instead}"
        )
    index = parse_json(read_text(inside(folder, INDEX)), str(folder / INDEX))
    names = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(names, dict) or not all(isinstance(n, str) for n in names.values()):
        raise UserError(f"{folder / INDEX}: expected an object with a `weight_map` of file names")
    files = [inside(folder, name) for name in sorted(set(names.values()))]
    missing = [path.name for path in files if not path.is_file()]
    if missing:
        raise UserError(
            f"{folder} lacks {len(missing)} of {len(files)} shards of {INDEX}, no file "
            f"{some(missing)}: download or copy the folder again"
        )
    return files


@contextmanager
def _opened(path: Path, device: torch.device) -> Iterator[Any]:
    refuse_pointer(path)
    with _faults(path), safe_open(path, "pt", device=str(device)) as file:
        yield file


def without_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names without the `module.` of DistributedDataParallel and the `_orig_mod.` of torch.compile, one
    in the other or twice. UserError if two names become one."""
    bare = [_WRAPPERS.sub("", name) for name in state]
    if len(set(bare)) < len(bare):
        twice = [name for name, rest in zip(state, bare, strict=True) if bare.count(rest) > 1]
        raise UserError(
            f"without their prefixes two weights are of one name: {some(twice)}; save one model"
        )
    return dict(zip(bare, state.values(), strict=True))


def _faults(path: Path) -> AbstractContextManager[None]:
    message = (
        f"{path} is not a whole weights file ({{error}}): it is damaged or of another format; "
    )
    return one_line(message + "download it again", torch.OutOfMemoryError)


def _kind_of(path: Path) -> str:
    """'zip' or 'pickle'; UserError for every other kind of file."""
    refuse_pointer(path)
    with open(path, "rb") as file:
        head = file.read(len(_ZIP))
    if head == _ZIP:
        return "zip"
    if head.strip(b"\0") and tarfile.is_tarfile(path):
        raise UserError(f"{path} is a tar file of torch before 0.1.10: save it again")
    if not head.startswith(_PICKLE):
        raise UserError(
            f"{path} is not a whole weights file (it begins with {head!r}): it is empty, a web page or "
            "of another format; download it again"
        )
    return "pickle"


def _read_zip(path: Path, copy: bool = True) -> Any:
    with zipfile.ZipFile(path) as archive:
        infos, comment = archive.infolist(), archive.comment
    sizes = {info.filename.split("/", 1)[-1]: info.file_size for info in infos}
    _refuse_code(path, sizes)
    if comment or any(i.compress_type != zipfile.ZIP_STORED or i.flag_bits & 1 for i in infos):
        raise ValueError("its records are compressed, or text follows them, as torch writes none")
    reader = torch._C.PyTorchFileReader(str(path))
    names = reader.get_all_records()
    _refuse_code(path, names)
    if sorted(sizes) != sorted(names) or len(sizes) != len(infos):
        raise ValueError("two readers of zip archives do not see the same records in it")
    if "byteorder" in sizes and _record(path, reader, "byteorder", sizes) != b"little":
        raise ValueError("its numbers are not little-endian")
    tensors = _Tensors(
        path, lambda key: (_offset(reader, f"data/{key}"), sizes[f"data/{key}"]), copy
    )
    pickled = io.BytesIO(_record(path, reader, "data.pkl", sizes))
    return read_pickle(pickled, tensors.resolve, tensors.storage)


def _refuse_code(path: Path, names: Iterable[str]) -> None:
    if any(name == "constants.pkl" or name.startswith("code/") for name in names):
        raise UserError(
            f"{path} is a TorchScript archive, which holds code: give the weights alone, as "
            "`torch.save(model.state_dict(), path)` writes them"
        )


def _offset(reader: Any, name: str) -> int:
    return int(reader.get_record_offset(name))


def _record(path: Path, reader: Any, name: str, sizes: dict[str, int]) -> bytes:
    if sizes[name] > MAX_PICKLE:
        raise ValueError(f"{name} has {sizes[name]} bytes")
    with open(path, "rb") as file:
        file.seek(_offset(reader, name))
        return file.read(sizes[name])


def _read_bare(path: Path) -> Any:
    """Magic number, version, machine, the value, the keys of the storages; then their bytes."""
    with open(path, "rb") as file:
        if read_pickle(file) != _MAGIC:
            raise ValueError("it is no pickle of torch.save")
        read_pickle(file)
        read_pickle(file)
        start, types = file.tell(), _Tensors(path, None, True)
        read_pickle(file, persistent=types.storage)  # which storages there are
        places: dict[str, tuple[int, int]] = {}
        for key in map(_key, read_pickle(file)):
            count = struct.unpack("<q", file.read(8))[0]
            size = count * types.known[key].dtype.itemsize
            places[key] = (file.tell(), size)
            file.seek(size, io.SEEK_CUR)
        file.seek(start)
        tensors = _Tensors(path, places.__getitem__, True)
        return read_pickle(file, tensors.resolve, tensors.storage)


@dataclass(frozen=True)
class _Storage:
    """The numbers that tensors are views of; None where only their count is asked for."""

    dtype: torch.dtype
    count: int
    numbers: Tensor | None


class _Tensors:
    """Makes tensors of what a pickle says of them, if the file holds their bytes."""

    def __init__(
        self, path: Path, place: Callable[[str], tuple[int, int]] | None, copy: bool
    ) -> None:
        """place: key of a storage -> its first byte and its size; None: not known yet. copy: into
        memory, so that the file may change afterwards."""
        self._place, self._copy, self._used = place, copy, 0
        self._bytes = path.stat().st_size
        self._mapped = torch.from_file(str(path), False, self._bytes, dtype=torch.uint8)
        self.known: dict[str, _Storage] = {}

    def storage(self, identity: Any) -> Any:
        """What a persistent id means."""
        if identity[0] == "module":
            return identity[1]
        kind, key, count, view = identity[1], _key(identity[2]), identity[4], (*identity, None)[5]
        dtype = _TYPES.get(kind.name.rsplit(".", 1)[-1].removesuffix("Storage"))
        if identity[0] != "storage" or dtype is None or view is not None:
            return Call("storage")
        if key not in self.known:
            self.known[key] = _Storage(dtype, _whole(count), self._numbers(key, dtype, count))
        return self.known[key]

    def _numbers(self, key: str, dtype: torch.dtype, count: int) -> Tensor | None:
        """A view of the mapped file, or a copy where its place allows no view."""
        if self._place is None:
            return None
        start, size = self._place(key)
        if count * dtype.itemsize != size or not 0 <= start <= self._bytes - size:
            raise ValueError(f"storage {short(key)} of {count} numbers has {size} bytes")
        self._use(size)
        part = self._mapped[start : start + size]
        return (part.clone() if self._copy or start % dtype.itemsize else part).view(dtype)

    def _use(self, size: int) -> None:
        self._used += size
        if self._used > MAX_REPEATS * self._bytes:
            raise ValueError("its tensors are many times as large as the file")

    def resolve(self, call: Call) -> Any:
        """Tensors, and what stands for plain containers; other calls as they are."""
        args = call.args
        if call.name == _TENSOR:
            return self._tensor(*args[:4])
        if call.name == _PARAMETER:
            return args[0]
        if call.name == "collections.OrderedDict" and not args:
            return {}
        return args[0] if call.name == "torch.Size" and len(args) == 1 else call

    def _tensor(self, storage: Any, offset: Any, size: Any, stride: Any) -> Tensor:
        if not isinstance(storage, _Storage) or storage.numbers is None or len(size) > 32:
            raise ValueError("a tensor without a storage")
        shape, steps = [_whole(n) for n in size], [_whole(n) for n in stride]
        count = math.prod(shape)
        last = _whole(offset) + sum((n - 1) * s for n, s in zip(shape, steps, strict=True))
        if count > storage.count or (count and last >= storage.count):
            raise ValueError(f"a tensor of {count} numbers in a storage of {storage.count}")
        self._use(count * storage.dtype.itemsize)
        first = storage.numbers.storage_offset() + (offset if count else 0)
        return torch.as_strided(storage.numbers, shape, steps, first)


def _key(value: Any) -> str:
    """The key of a storage. Never written out where it is none: shared containers grow without end."""
    if not isinstance(value, str | int):
        raise ValueError("a storage whose key is no text")
    return str(value)


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise ValueError("a size that is no number")
    return value
