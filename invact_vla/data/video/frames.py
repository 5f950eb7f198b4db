"""Frames of whatever counts as a video, by its path, and the key of its content.

a video file, or one inside an HDF5 file        see decode.py, hdf5_video.py
"""

import hashlib
from functools import lru_cache
from pathlib import Path

from invact_vla.data.video.decode import VideoError, decode_frames, probe
from invact_vla.data.video.hdf5_video import read_embedded

WHOLE = 16 << 20  # bytes of a file up to which all of it is hashed
BLOCK = 1 << 20  # bytes of the parts of a larger file that are


def video_key(path: Path) -> str:
    """16 digits that change with the content of a video, wherever it lies. Raises VideoError.

    SHA-256 of all bytes; of a file beyond 16 MiB, of its size and 16 MiB spread evenly over it.
    """
    path = Path(path)
    if path.is_file():
        stat = path.stat()
        return _file_key(path, stat.st_size, stat.st_mtime_ns)
    try:
        content = read_embedded(path)
    except LookupError as error:
        raise VideoError(str(error.args[0])) from error
    if content is None:
        raise VideoError(f"no video {path}: correct the path, or fetch the file")
    return hashlib.sha256(content).hexdigest()[:16]


@lru_cache(maxsize=1 << 20)
def _file_key(path: Path, size: int, _changed_ns: int) -> str:
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        if size <= WHOLE:
            digest.update(file.read())
        else:
            parts = WHOLE // BLOCK
            for part in range(parts):
                file.seek(part * (size - BLOCK) // (parts - 1))
                digest.update(file.read(BLOCK))
    return digest.hexdigest()[:16]


__all__ = ["VideoError", "decode_frames", "probe", "video_key"]
