"""The one door to HDF5 files: nothing outside of a file is read through it, and no array that its claims
make enormous."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from invact_vla.core.errors import UserError
from invact_vla.core.limits import refuse_pointer, short

SUFFIXES = (".hdf5", ".h5")
MAX_LINKS = 2_000_000  # names in a file
MAX_ARRAY = 2 << 30  # bytes of one array


class _Outside(Exception):
    """A part of a file lies in another file."""


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """The h5py.File, to be read. Missing and damaged files, and those whose data lie in other files
    (external links and storage, virtual data sets), are UserErrors; so is what HDF5 complains of
    later."""
    import h5py

    path = Path(path)
    if not path.is_file():
        raise UserError(f"no file {path}: correct the path, or fetch it")
    refuse_pointer(path)
    stamp = path.stat()
    try:
        _refuse_outside(path, stamp.st_size, stamp.st_mtime_ns)
        with h5py.File(path, "r") as file:
            yield file
    except _Outside as error:
        raise UserError(
            f"{path}: {short(error)}: expected a file that holds its own data; copy them in if you "
            "trust it"
        ) from error
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, IndexError,
            OverflowError, MemoryError, RecursionError) as error:  # fmt: skip
        raise UserError(
            f"{path} is no HDF5 file, lacks what is read or is damaged ({short(error)}): fetch or make "
            "it again"
        ) from error


def read_array(dataset: Any, rows: slice = slice(None)) -> np.ndarray:
    """The numbers of a data set, or some rows. ValueError for other types and for more than MAX_ARRAY
    bytes in all."""
    name, dtype = short(str(dataset.name)), getattr(dataset, "dtype", None)
    if dtype is None or dtype.kind not in "biuf":
        raise ValueError(f"{name} holds no numbers")
    if int(np.prod(dataset.shape, dtype=object)) * max(dtype.itemsize, 8) > 8 * MAX_ARRAY:
        raise ValueError(f"{name} claims {short(str(dataset.shape))} numbers, more than are read")
    if dataset.nbytes > MAX_ARRAY:
        raise ValueError(f"{name} has {dataset.nbytes} bytes, more than {MAX_ARRAY} are not read")
    return dataset[rows] if dataset.shape else dataset[()]


@functools.lru_cache(maxsize=1024)
def _refuse_outside(path: Path, _size: int, _changed_ns: int) -> None:
    """Look at every link and every data set of a file, once per state of it."""
    import h5py

    low: Any = h5py  # its low-level modules have no types
    with low.File(path, "r") as file:
        found: list[bytes] = []
        outside: list[bytes] = []

        def look(name: bytes, info: Any) -> bool | None:
            if info.type == low.h5l.TYPE_HARD:
                found.append(name)
            elif info.type != low.h5l.TYPE_SOFT:
                outside.append(name)
            return True if outside or len(found) > MAX_LINKS else None

        file.id.links.visit(look, info=True)
        if len(found) > MAX_LINKS:
            raise _Outside(f"more than {MAX_LINKS} names")
        if outside:
            raise _Outside(f"{outside[0].decode(errors='replace')} is a link to another file")
        for name in found:
            item = low.h5o.open(file.id, name)
            if not isinstance(item, low.h5d.DatasetID):
                continue
            properties = item.get_create_plist()
            if properties.get_layout() == low.h5d.VIRTUAL or properties.get_external_count():
                raise _Outside(f"the numbers of {name.decode(errors='replace')} lie elsewhere")
