"""Files of data sets as they arrive: pointers of git-lfs, parquet, encoded pictures.

What is wrong with a file is a UserError that names it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from invact_vla.core.errors import UserError
from invact_vla.core.limits import inside, refuse_pointer, short
from invact_vla.untrusted.arrays import as_rgb, check_size, open_picture

JPEG_START = b"\xff\xd8"
MAX_FRAME_BYTES = 2 << 30  # of the frames of one camera in one demonstration
MAX_STEPS = 1_000_000  # of a demonstration: 14 hours at 20 Hz
MOST_ROWS = 20_000_000  # of a table
ROWS_PER_BYTE = 8  # the most rows that a byte of a table stands for
MOST_UNPACKED = 1 << 30  # bytes that a table may unpack to, beyond its own


def check_file(path: Path) -> Path:
    """The path, if there is a file that is not a text pointer of git-lfs."""
    if not path.is_file():
        raise UserError(f"no file {path}: the data set is incomplete; fetch it again")
    refuse_pointer(path)
    return path


def files_of(folder: Path, found: Iterable[Path]) -> list[Path]:
    """The files in order; UserError for one that is a link out of the folder."""
    paths = sorted(found)
    for path in paths:
        inside(folder, path.relative_to(folder))
    return paths


def open_parquet(path: Path) -> pq.ParquetFile:
    """A parquet file, opened without reading it; UserError if it claims more rows than its bytes can
    hold."""
    with _damage_named(path):
        file = pq.ParquetFile(check_file(path), memory_map=True, thrift_string_size_limit=1 << 26)
        metadata, size = file.metadata, path.stat().st_size
        # by the row groups' own sums: asked for the description of a damaged column, pyarrow ends the
        # process, where reading it raises
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        unpacked = sum(max(0, group.total_byte_size) for group in groups)
        claims = f"{metadata.num_rows} rows in {size} bytes, unpacked {unpacked}"
    known_rows = 0 <= metadata.num_rows <= min(MOST_ROWS, 10_000 + size * ROWS_PER_BYTE)
    if not known_rows or unpacked > MOST_UNPACKED + size:
        raise UserError(f"{path} claims {claims}: it is damaged or forged")
    return file


def read_columns(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Columns of a parquet file (those that are there), or all."""
    file = open_parquet(path)
    known = file.schema_arrow.names
    with _damage_named(path):
        return file.read(None if columns is None else [c for c in columns if c in known])


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, OverflowError, KeyError, MemoryError) as error:
        raise UserError(
            f"{path} is no parquet file or is damaged ({short(error)}): fetch it again"
        ) from error


def decode_picture(where: str, data: bytes) -> np.ndarray:
    """JPEG or PNG -> uint8 (H, W, 3) RGB; JPEG as TensorFlow decodes it, bit for bit."""
    import simplejpeg

    if not isinstance(data, bytes):
        kind = type(data).__name__
        raise UserError(f"{where}: a picture is {kind}, expected bytes: fetch it again")
    if data[:2] != JPEG_START:
        with open_picture(where, data) as image:
            return as_rgb(image)
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(data)
        check_size(where, int(height), int(width))
        return simplejpeg.decode_jpeg(data, "RGB", fastdct=True, fastupsample=False)
    except ValueError as error:
        raise UserError(
            f"{where}: no picture that can be decoded ({short(error)}): fetch it again"
        ) from error


def check_pixels(where: str, height: int, width: int, count: int = 1) -> None:
    """UserError for frames too large to be decoded, or too many of them to be held as uint8 RGB."""
    check_size(where, height, width)
    if height * width * 3 * count > MAX_FRAME_BYTES:
        raise UserError(
            f"{where}: {count} frames of {width} x {height} px are more than {MAX_FRAME_BYTES >> 20} "
            "MiB: scale them down or cut them first"
        )


def decode_pictures(where: str, encoded: Iterable[Any], count: int) -> np.ndarray:
    """`count` pictures as `decode_picture` gives them: uint8 (count, H, W, 3). UserError if their sizes
    differ, or if they are too many to be held."""
    frames = []
    for data in encoded:
        frames.append(decode_picture(where, data))
        height, width, _ = frames[-1].shape
        check_pixels(where, height, width, count)
    return stack_alike(where, frames)


def stack_alike(where: str, frames: Sequence[np.ndarray]) -> np.ndarray:
    """Frames (H, W, 3) of one size as (T, H, W, 3); UserError if their sizes differ."""
    if len({frame.shape for frame in frames}) != 1:
        raise UserError(f"{where}: no pictures, or of different sizes: fetch it again")
    return np.stack(frames)


def choose_cameras(
    where: str, chosen: Mapping[str, str], known: Sequence[str], usual: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """Camera name -> key of its pictures: those that were chosen, else what the keys themselves say.

    known: keys of all pictures. usual: camera -> keys that mean it. Where no usual key is there, the
    one key with wrist or hand in its name is the wrist camera, and the one other the agentview."""
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
        hands = [k for k in known if k in usual["wrist"]] or hands
        others = [k for k in known if k not in hands]
        views = {"agentview": others, "wrist": hands}
        found = {c: keys[0] if len(keys) == 1 else "" for c, keys in views.items()}
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
