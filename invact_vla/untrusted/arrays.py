"""NumPy archives of strangers: one array comes out, of bounded size, and no pickle."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from invact_vla.core.errors import UserError
from invact_vla.core.limits import refuse_pointer, short, some

MAX_BYTES = 256 << 20  # of the unpacked array


def read_npz(path: Path, name: str, limit: int = MAX_BYTES) -> np.ndarray:
    """The array of numbers `name` of an .npz file. UserError for a missing, damaged or enormous one."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no file {path}")
    refuse_pointer(path)
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {i.filename.removesuffix(".npy"): i.file_size for i in archive.infolist()}
        if name not in sizes:
            raise UserError(f"{path} has no array {short(name)}: it has {some(sizes)}")
        if sizes[name] > limit:
            raise UserError(f"{path}: array {short(name)} has {sizes[name]} bytes, at most {limit}")
        with np.load(path, allow_pickle=False) as arrays:
            value = arrays[name]
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
            raise ValueError(f"{short(name)} is no array of numbers")
        return value
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError,
            NotImplementedError, MemoryError) as error:  # fmt: skip
        raise UserError(f"{path} is no .npz file of numbers: {short(error)}") from error
