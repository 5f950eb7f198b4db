"""Frames of whatever counts as a video, by its path, and the key of its content: the one door.

a video file, or one inside an HDF5 file        see decode.py, hdf5_file.py
a folder of pictures, or the pictures of a      see pictures.py
camera of a robot demonstration
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np

from invact_vla.core.errors import UserError
from invact_vla.core.files import hash_json
from invact_vla.core.limits import short
from invact_vla.data import hdf5_file
from invact_vla.data.video import decode
from invact_vla.data.video.decode import Video, open_file
from invact_vla.data.video.display import Fit
from invact_vla.data.video.pictures import PictureVideo, holds_pictures, open_pictures
from invact_vla.data.video.video_info import VideoInfo

SUFFIXES = (".mp4", ".webm", ".avi", ".mkv", ".mov", ".m4v", ".mpg", ".mpeg")  # in any case
WHOLE = 16 << 20  # bytes of a file up to which all of it is hashed
BLOCK = 1 << 20  # bytes of the parts of a larger file that are
VideoError = hdf5_file.VideoError


@contextmanager
def open_video(path: Path, info: VideoInfo | None = None) -> Iterator[Video | PictureVideo]:
    """Open a video: it has `info`, `frames(indices, size, fit, seek)` and `all_frames(size, fit)`.
    Raises VideoError for what is missing, damaged or none.

    info: what `probe` gave, if it is known: saves reading all packets of a file to number its frames."""
    try:
        os.fsdecode(path).encode()  # label stores and reports keep names as text
        pictures = open_pictures(path)
        if pictures is not None:
            yield pictures
            return
        with open_file(path, info) as video:
            yield video
    except VideoError:
        raise
    except UnicodeEncodeError as error:
        raise VideoError(f"the name of {short(str(path))} is not UTF-8 text: rename it") from error
    except (UserError, OSError) as error:  # a pointer, enormous frames, a picture that is torn
        raise VideoError(f"cannot read {short(str(path))}: {short(error)}") from error


def probe(path: Path) -> VideoInfo:
    """Count the frames of a video, and tell their times, without decoding it. Raises VideoError."""
    with open_video(path) as video:
        return video.info


def decode_frames(
    path: Path,
    indices: Sequence[int] | np.ndarray,
    size: int | None = None,
    fit: Fit = "crop",
    seek: bool = False,
    info: VideoInfo | None = None,
) -> np.ndarray:
    """Decode the frames with the given indices (any order, repeats allowed), in one pass.

    size: side of the square output, or None for the video's own size. fit: "crop" scales the short
    side to `size` and cuts the center, "squash" ignores the aspect ratio. seek: start at the key
    frame before the first wanted frame and number frames by their time stamps: the same frames, sooner
    in a long video. info: what `probe` gave, if known. Returns uint8 (T, H, W, 3). Raises VideoError
    if the video is damaged or ends before the last wanted frame."""
    with open_video(path, info) as video:
        return video.frames(indices, size, fit, seek)


def decode_all(path: Path, size: int | None = None, fit: Fit = "crop") -> np.ndarray:
    """All frames of a (short) video, uint8 (T, H, W, 3). Raises VideoError."""
    with open_video(path) as video:
        return video.all_frames(size, fit)


def true_actions(path: Path) -> np.ndarray | None:
    """The actions of a robot demonstration, one per frame, float64 (T, A), in the data's own convention;
    None for other videos. Raises UserError for damaged data."""
    pictures = open_pictures(path)
    return None if pictures is None or pictures.actions is None else pictures.actions()


def list_files(folder: Path, depth: int | None = None) -> list[Path]:
    """All files below a folder but hidden ones, by path; linked folders are followed, and what is
    reached twice is listed once. depth: folders deep, 1 for the folder itself. Folders of pictures count
    as files: nothing in them is listed."""
    found, seen = [], set()
    for place, folders, names in os.walk(folder, followlinks=True):
        here, real = Path(place), os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        # what a link leads to is listed where it really lies, if that is below the folder, too
        folders.sort(key=lambda name: ((here / name).is_symlink(), name))
        films = [name for name in folders if _holds_pictures(here / name)]
        found += [here / name for name in names if not name.startswith(".")]
        found += [here / name for name in films]
        kept = [name for name in folders if name not in films and not name.startswith(".")]
        deeper = depth is None or len(here.relative_to(folder).parts) + 1 < depth
        folders[:] = kept if deeper else []
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def list_videos(folder: Path, depth: int | None = None) -> list[Path]:
    """The videos below a folder, by path: files of a video container, and folders of pictures."""
    files = list_files(folder, depth)
    return [path for path in files if path.suffix.lower() in SUFFIXES or path.is_dir()]


def _holds_pictures(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return holds_pictures([entry.name for entry in entries])


def file_stamp(path: Path) -> tuple[int, int] | None:
    """(bytes, time of change in ns) of what a video is read from; None if it is not there or torn."""
    try:
        pictures = open_pictures(path)
        if pictures is None:
            return decode.file_stamp(path)
        stats = [file.stat() for file in pictures.files]
    except (VideoError, OSError):
        return None
    return sum(stat.st_size for stat in stats), max(stat.st_mtime_ns for stat in stats)


def video_key(path: Path) -> str:
    """16 digits that change with the content of a video, wherever it lies. Raises VideoError.

    SHA-256 of all bytes; of a file beyond 16 MiB, of its size and 16 MiB spread evenly over it."""
    path = Path(path)
    if path.is_file():
        return _key(path)
    pictures = open_pictures(path)
    if pictures is not None:
        return hash_json([pictures.name, pictures.info.n_frames, *map(_key, pictures.files)])
    return hashlib.sha256(hdf5_file.read_embedded(path)).hexdigest()[:16]


def _key(path: Path) -> str:
    stat = path.stat()
    return _file_key(path, stat.st_size, stat.st_mtime_ns)


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
