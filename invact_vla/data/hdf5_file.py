"""The one door to HDF5 files: nothing outside of a file is read through it, and no array that its claims
make enormous. And videos inside them, as PhyWorld publishes them: the bytes of an MP4 file a sample.

    <file>.hdf5   position_streams/<shard>   float (n, T, balls, 2), or (n, T, 2) for one ball
                  init_streams/<shard>       float (n, 2 or 4)
                  video_streams/<shard>      n byte strings (vlen uint8), each an MP4 file

Shards are named 00000, 00001, ... A video inside such a file has a path that goes on into it:
`<file>.hdf5/video_streams/00000/17`. Layout: github.com/phyworld/phyworld.
"""

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from invact_vla.core.errors import UserError
from invact_vla.core.files import atomic_file
from invact_vla.core.limits import short
from invact_vla.data.source_files import check_file

SUFFIXES = (".hdf5", ".h5")
MAX_LINKS = 2_000_000  # names in a file
MAX_ARRAY = 2 << 30  # bytes of one array
POSITIONS, INITS, VIDEOS = "position_streams", "init_streams", "video_streams"


class _Outside(Exception):
    """A part of a file lies in another file."""


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """The h5py.File, to be read. Missing and damaged files, and those whose data lie in other files
    (external links and storage, virtual data sets), are UserErrors; so is what HDF5 complains of
    later."""
    import h5py

    path = check_file(Path(path))
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


@dataclass(frozen=True)
class BallShard:
    """n samples of one shard. positions: float (n, T, balls, 2), world units; init: float (n, 2 or
    4), radii and then speeds of the balls. videos: paths inside the file, in order."""

    name: str
    positions: np.ndarray
    init: np.ndarray
    videos: tuple[Path, ...]


class VideoError(UserError):
    """A video that is missing, truncated or corrupt; the message names the file."""


def read_embedded(path: Path) -> bytes:
    """The bytes of a video inside an HDF5 file; VideoError if the path leads to none."""
    file = next((p for p in Path(path).parents if p.suffix in SUFFIXES and p.is_file()), None)
    if file is None:
        raise VideoError(f"no video file {path}: correct the path, or fetch the file")
    *group, index = Path(path).relative_to(file).parts
    try:
        with open_hdf5(file) as content:
            return np.asarray(content["/".join(group)][int(index)], np.uint8).tobytes()
    except UserError as error:
        raise VideoError(
            f"no video {'/'.join(group)}/{index} in {file} ({short(error)}): fetch the file again"
        ) from error


def read_shards(file: Path) -> list[BallShard]:
    """Positions and initial values of all samples, without the videos. Raises UserError."""
    try:
        with open_hdf5(file) as content:
            return [_shard(content, file, name) for name in sorted(content[VIDEOS])]
    except UserError as error:
        raise UserError(
            f"cannot read {file} as PhyWorld data ({short(error)}): expected the groups {POSITIONS}, "
            f"{INITS} and {VIDEOS} with a dataset a shard; fetch the file again"
        ) from error


def _shard(content: Any, file: Path, name: str) -> BallShard:
    positions = read_array(content[POSITIONS][name]).astype(np.float64)
    init = read_array(content[INITS][name]).astype(np.float64)
    count = len(content[VIDEOS][name])
    if not len(positions) == len(init) == count:
        raise UserError(
            f"shard {name} has {len(positions)} positions, {len(init)} initial values and {count} "
            "videos, expected equal numbers"
        )
    if positions.ndim == 3:  # one ball
        positions = positions[:, :, None]
    videos = tuple(file / VIDEOS / name / str(index) for index in range(count))
    return BallShard(name, positions, init, videos)


def write_shards(
    file: Path, shards: Sequence[tuple[np.ndarray, np.ndarray, Sequence[bytes]]]
) -> None:
    """Write (positions, init, MP4 files) of every shard in the published layout, atomically.

    positions (n, T, balls, 2), or (n, T, 2) for one ball; init (n, 2 or 4)."""
    import h5py

    with atomic_file(file) as temporary, h5py.File(temporary, "w") as content:
        for number, (positions, init, videos) in enumerate(shards):
            content[f"{POSITIONS}/{number:05d}"] = positions
            content[f"{INITS}/{number:05d}"] = init
            shape, kind = (len(videos),), h5py.vlen_dtype(np.uint8)
            dataset = content.create_dataset(f"{VIDEOS}/{number:05d}", shape, kind)
            for index, video in enumerate(videos):
                dataset[index] = np.frombuffer(video, np.uint8)
