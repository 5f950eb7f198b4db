"""Files of data sets as they arrive: pointers of git-lfs, parquet, encoded pictures.

What is wrong with a file is a UserError that names it.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from invact_vla.errors import UserError

POINTER = b"version https://git-lfs"
JPEG_START = b"\xff\xd8"


def check_file(path: Path) -> Path:
    """The path, if there is a file that is not a text pointer of git-lfs."""
    if not path.is_file():
        raise UserError(f"no file {path}: the data set is incomplete; fetch it again")
    with open(path, "rb") as file:
        if file.read(len(POINTER)) == POINTER:
            raise UserError(
                f"{path} is a git-lfs pointer, not the data: run `git lfs pull` in the data set, or "
                "fetch it with `hf download`"
            )
    return path


def open_parquet(path: Path) -> pq.ParquetFile:
    """A parquet file, opened without reading it."""
    try:
        return pq.ParquetFile(check_file(path), memory_map=True)
    except (pa.ArrowInvalid, OSError) as error:
        raise _damaged(path, error) from error


def read_columns(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Columns of a parquet file (those that are there), or all."""
    file = open_parquet(path)
    known = file.schema_arrow.names
    try:
        return file.read(None if columns is None else [c for c in columns if c in known])
    except (pa.ArrowInvalid, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split())
    return UserError(f"{path} is no parquet file or is damaged ({reason}): fetch it again")


def decode_picture(where: str, data: bytes) -> np.ndarray:
    """JPEG or PNG -> uint8 (H, W, 3) RGB; JPEG as TensorFlow decodes it, bit for bit."""
    import simplejpeg
    from PIL import Image

    try:
        if data[:2] == JPEG_START:
            return simplejpeg.decode_jpeg(data, "RGB", fastdct=True, fastupsample=False)
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{where}: a picture cannot be decoded ({error}): fetch it again"
        ) from error


def choose_cameras(
    where: str, chosen: Mapping[str, str], known: Sequence[str], usual: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """Camera name -> key of its pictures: those that were chosen, else what the keys themselves say.

    known: keys of all pictures. usual: camera -> keys that mean it. Where no usual key is there, the
    one key with wrist or hand in its name is the wrist camera, and the one other the agentview.
    """
    missing = [key for key in chosen.values() if key not in known]
    if missing:
        raise UserError(
            f"{where}: no pictures {missing[0]}, it has {list(known) or 'none at all'}: correct "
            "--data.cameras"
        )
    if chosen:
        return dict(chosen)
    found = {c: next((k for k in keys if k in known), "") for c, keys in usual.items()}
    if not found["agentview"]:
        hands = [k for k in known if any(w in k.lower() for w in ("wrist", "hand", "grip"))]
        others = [k for k in known if k not in hands]
        found = {c: (ks[0] if len(ks) == 1 else "") for c, ks in
                 (("agentview", others), ("wrist", hands))}  # fmt: skip
    if not found["agentview"]:
        raise UserError(
            f"{where}: which of its pictures {list(known)} is the third-person camera? say "
            "--data.cameras '{agentview: KEY, wrist: KEY}'"
        )
    return {camera: key for camera, key in found.items() if key}


def choose_key(where: str, kind: str, chosen: str | None, known: Any, usual: Sequence[str]) -> str:
    """The key of the actions: the chosen one, or the first usual one that is there."""
    found = next((k for k in ((chosen,) if chosen else usual) if k in known), None)
    if found is None:
        raise UserError(
            f"{where}: no {kind} {chosen or usual[0]}, it has {sorted(known)}: say --data.{kind} KEY"
        )
    return found
