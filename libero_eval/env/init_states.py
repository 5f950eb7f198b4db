"""LIBERO's init states, read without trusting a pickle.

The files are zip archives that hold one pickle of one float64 array. A pickle can name any function
and forge the inside of any object, so it is read as data (untrusted/inert_pickle.py).
"""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from invact_vla.core.errors import UserError
from invact_vla.core.limits import refuse_pointer, short
from invact_vla.untrusted.inert_pickle import Call, read_pickle
from libero_eval.env.tasks import init_file, task_name

MAX_BYTES = 16 << 20  # the largest file of the wheel has 50 x 123 float64 = 49 kB
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # those that can be read piece by piece
_RECONSTRUCT = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")


def init_states(suite: str, task_id: int) -> np.ndarray | None:
    """The init states of a task: float64 (N, D), 50 for LIBERO's own; None for an own task without,
    whose episodes begin in random layouts."""
    path = init_file(suite, task_name(suite, task_id))
    return None if path is None else read_init_states(path)


def check_range(suite: str, task_id: int, first: int, count: int, option: str = "episodes") -> None:
    """Raise UserError unless the init states first .. first + count - 1 exist. option: says how many."""
    states = init_states(suite, task_id)
    if states is None or first + count <= len(states):
        return
    left = len(states) - first
    remedy = f"give --{option} {left}" if left > 0 else "lower --first_init"
    raise UserError(
        f"task {task_id} ({task_name(suite, task_id)}) has {len(states)} init states, "
        f"0..{len(states) - 1}; asked for {first}..{first + count - 1}: {remedy}"
    )


def read_init_states(path: Path) -> np.ndarray:
    """Read a `.pruned_init` or `.npy` file. Returns float64 (N, D), D = 1 + nq + nv: [time, qpos, qvel].

    Anything but one finite float array is a UserError that names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no init states {path}")
    refuse_pointer(path)
    is_plain = path.suffix == ".npy"
    try:
        value = _mapped(path) if is_plain else _array_of(read_pickle(io.BytesIO(_pickle_of(path))))
    except Exception as error:
        what = ": refused, init states must be a zip with one float64 array"
        what = " is no .npy file of numbers" if is_plain else what
        raise UserError(f"{path}{what}: {short(error)}") from error
    if value.dtype != np.float64 or value.ndim != 2:
        got = f"{short(str(value.dtype))} of {value.ndim} dimensions"
        raise UserError(f"{path}: expected float64 (N, 1 + nq + nv), got {got}")
    if not len(value) or not np.all(np.isfinite(value)):
        raise UserError(f"{path}: expected finite init states, got none or NaN")
    return value


def _mapped(path: Path) -> np.ndarray:
    # mapped: NumPy holds the shape against the size of the file before anything is read
    value = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(value, np.ndarray) or value.nbytes > MAX_BYTES:
        raise ValueError(f"no single array of at most {MAX_BYTES >> 20} MiB")
    return np.array(value)


def _pickle_of(path: Path) -> bytes:
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES >> 20} MiB")
    with zipfile.ZipFile(path) as archive:
        found = [i for i in archive.infolist() if i.filename.endswith("data.pkl")]
        if len(found) != 1 or found[0].compress_type not in _COMPRESSIONS:
            raise ValueError(f"{len(found)} plain files data.pkl in it, expected 1")
        with archive.open(found[0]) as file:
            content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"data.pkl is larger than {MAX_BYTES >> 20} MiB")
    return content


def _array_of(value: Any) -> np.ndarray:
    """The array that NumPy's `_reconstruct` and the state after it would make; ValueError for any
    other value. Shape, type and byte count are held against each other before the bytes are taken."""
    if not isinstance(value, Call) or value.name not in _RECONSTRUCT:
        found = value.name if isinstance(value, Call) else type(value).__name__
        raise ValueError(f"it holds {short(found)}, not an array")
    _, shape, dtype, is_fortran, data = value.state
    if not isinstance(dtype, Call) or (dtype.name, dtype.args[:1]) != ("numpy.dtype", ("f8",)):
        raise ValueError("its numbers are not float64")
    _, order, *fields = dtype.state[:5]
    if any(field is not None for field in fields):
        raise ValueError("its numbers have parts")
    if isinstance(data, Call) and data.name == "_codecs.encode" and data.args[1] == "latin1":
        data = data.args[0].encode("latin1")  # how protocol 2 writes bytes
    sizes = isinstance(shape, tuple) and all(type(n) is int and 0 <= n <= MAX_BYTES for n in shape)
    if not sizes or len(shape) != 2 or order not in ("<", ">") or not isinstance(data, bytes):
        raise ValueError("its shape is not (N, 1 + nq + nv), or its bytes are none")
    if shape[0] * shape[1] * 8 != len(data):
        raise ValueError(f"{len(data)} bytes for {shape[0]} x {shape[1]} numbers")
    values = np.frombuffer(data, f"{order}f8").astype(np.float64)
    return values.reshape(shape, order="F" if is_fortran else "C")
