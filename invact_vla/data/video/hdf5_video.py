"""Videos inside HDF5 files, as PhyWorld publishes them: the bytes of an MP4 file a sample.

    <file>.hdf5   position_streams/<shard>   float (n, T, balls, 2), or (n, T, 2) for one ball
                  init_streams/<shard>       float (n, 2 or 4)
                  video_streams/<shard>      n byte strings (vlen uint8), each an MP4 file

Shards are named 00000, 00001, ... A video inside such a file has a path that goes on into it:
`<file>.hdf5/video_streams/00000/17`. Layout: github.com/phyworld/phyworld.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from invact_vla.core.errors import UserError
from invact_vla.core.files import atomic_file
from invact_vla.core.limits import short
from invact_vla.data.hdf5_file import SUFFIXES, open_hdf5, read_array

POSITIONS, INITS, VIDEOS = "position_streams", "init_streams", "video_streams"


@dataclass(frozen=True)
class BallShard:
    """n samples of one shard. positions: float (n, T, balls, 2), world units; init: float (n, 2 or
    4), radii and then speeds of the balls. videos: paths inside the file, in order.
    """

    name: str
    positions: np.ndarray
    init: np.ndarray
    videos: tuple[Path, ...]


def read_embedded(path: Path) -> bytes | None:
    """The bytes of a video inside an HDF5 file; None if the path does not lead into one.

    Raises LookupError, with what is wrong, if the file has no such video.
    """
    file = next((p for p in Path(path).parents if p.suffix in SUFFIXES and p.is_file()), None)
    if file is None:
        return None
    *group, index = Path(path).relative_to(file).parts
    try:
        with open_hdf5(file) as content:
            return np.asarray(content["/".join(group)][int(index)], np.uint8).tobytes()
    except UserError as error:
        raise LookupError(
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

    positions (n, T, balls, 2), or (n, T, 2) for one ball; init (n, 2 or 4).
    """
    import h5py

    with atomic_file(file) as temporary, h5py.File(temporary, "w") as content:
        for number, (positions, init, videos) in enumerate(shards):
            content[f"{POSITIONS}/{number:05d}"] = positions
            content[f"{INITS}/{number:05d}"] = init
            shape, kind = (len(videos),), h5py.vlen_dtype(np.uint8)
            dataset = content.create_dataset(f"{VIDEOS}/{number:05d}", shape, kind)
            for index, video in enumerate(videos):
                dataset[index] = np.frombuffer(video, np.uint8)
