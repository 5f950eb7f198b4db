"""LIBERO's init states, read without trusting a pickle.

The files are zip archives that hold one pickle of one float64 array. A pickle can name any
function, so the reader resolves the four names that an array needs and refuses everything else.
"""

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np

from invact_vla.errors import UserError
from libero_eval import own_suite
from libero_eval.libero_home import init_states_file
from libero_eval.tasks import is_own, task_name

MAX_BYTES = 16 << 20  # the largest file of the wheel has 50 x 123 float64 = 49 kB


def _latin1_bytes(text: str, encoding: str) -> bytes:
    """What protocol-2 pickles use for raw bytes; nothing but latin-1 is accepted."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding!r}")
    return text.encode("latin1")


def _empty_array(kind: type, shape: tuple[int, ...], code: bytes) -> np.ndarray:
    """What NumPy's `_reconstruct` does for an ndarray; the data comes with the state."""
    if kind is not np.ndarray or shape != (0,):
        raise pickle.UnpicklingError(f"array subclass {kind} of shape {shape}")
    return np.ndarray(shape, dtype=np.int8)


class _ArrayUnpickler(pickle.Unpickler):
    """An unpickler that knows arrays and nothing else."""

    ALLOWED: ClassVar[dict[tuple[str, str], Callable | type]] = {
        ("numpy.core.multiarray", "_reconstruct"): _empty_array,
        ("numpy._core.multiarray", "_reconstruct"): _empty_array,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _latin1_bytes,
    }

    def find_class(self, module: str, name: str) -> Callable | type:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return self.ALLOWED[module, name]


def read_init_states(path: Path) -> np.ndarray:
    """Read a `.pruned_init` file. Returns float64 (N, D), D = 1 + nq + nv: [time, qpos, qvel].

    Anything but one float array in the archive is a UserError that names the file and the finding.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [n for n in archive.namelist() if n.endswith("data.pkl")]
            if len(names) != 1 or archive.getinfo(names[0]).file_size > MAX_BYTES:
                raise UserError(f"{path}: expected one small data.pkl in the archive, got {names}")
            value = _ArrayUnpickler(io.BytesIO(archive.read(names[0]))).load()
    except FileNotFoundError as error:
        raise UserError(f"no init states {path}") from error
    except (zipfile.BadZipFile, pickle.UnpicklingError, EOFError, ValueError, TypeError,
            AttributeError, IndexError, KeyError, MemoryError, OverflowError) as error:  # fmt: skip
        raise UserError(
            f"{path}: refused, init states must be a zip with one NumPy array: {error}"
        ) from error
    return _checked(path, value)


def _checked(path: Path, value: object) -> np.ndarray:
    if not isinstance(value, np.ndarray) or value.dtype != np.float64 or value.ndim != 2:
        got = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value)
        raise UserError(f"{path}: expected float64 (N, 1 + nq + nv), got {got}")
    if not len(value) or not np.all(np.isfinite(value)):
        raise UserError(f"{path}: expected finite init states, got none or NaN")
    return value


def init_states(suite: str, task_id: int) -> np.ndarray | None:
    """The init states of a task: float64 (N, D), 50 for LIBERO's own; None for an own task without,
    whose episodes begin in random layouts."""
    name = task_name(suite, task_id)
    if not is_own(suite):
        return read_init_states(init_states_file(suite, name))
    path = own_suite.init_file(suite, name)
    if path is None:
        return None
    return read_array(path) if path.suffix == ".npy" else read_init_states(path)


def read_array(path: Path) -> np.ndarray:
    """Read init states from a .npy file, as `read_init_states` gives them."""
    try:
        value = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} is no .npy file of numbers: {error}") from error
    return _checked(path, value)


def check_range(suite: str, task_id: int, first: int, count: int) -> None:
    """Raise UserError unless the init states first .. first + count - 1 exist."""
    states = init_states(suite, task_id)
    if states is None or first + count <= len(states):
        return
    left = len(states) - first
    remedy = f"give --episodes {left}" if left > 0 else "lower --first_init"
    raise UserError(
        f"task {task_id} ({task_name(suite, task_id)}) has {len(states)} init states, "
        f"0..{len(states) - 1}; asked for {first}..{first + count - 1}: {remedy}"
    )
