"""Frames as a model reads them, prepared once per (data set, processor) and shared between runs.

    <cache>/frames/<key>/<episode>.bin    uint8 (T, V, S, S, 3), one file per episode, whole or absent

Files are read with `pread`, a sample at a time: neither the frames nor pages mapped from them count as
resident memory, which therefore does not grow with the data. A killed build goes on where it was.

Axis letters: T steps, V cameras, S side of the model's images (px), B samples.
"""

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tqdm import tqdm

from invact_vla.core.errors import UserError
from invact_vla.core.files import atomic_file, hash_json
from invact_vla.data.dataset import RobotDataset

Prepare = Callable[[np.ndarray], np.ndarray]  # uint8 (T, H, W, 3) -> (T, S, S, 3); picklable
_OPEN_FILES = 128


@dataclass(frozen=True)
class FrameCache:
    """Prepared frames of a data set's episodes. size: pixels per side."""

    folder: Path
    cameras: tuple[str, ...]
    size: int

    @classmethod
    def of(
        cls, root: Path, dataset: RobotDataset, cameras: Sequence[str], size: int, how: object
    ) -> "FrameCache":
        """The cache below `root` of a data set's cameras; how: JSON-able identity of `prepare`."""
        key = hash_json({"data": dataset.key, "cameras": list(cameras), "size": size, "how": how})
        return cls(Path(root) / key, tuple(cameras), size)

    def build(
        self, dataset: RobotDataset, episodes: Iterable[int], prepare: Prepare, workers: int
    ) -> None:
        """Prepare the episodes that are not there yet. `workers` processes; 0 and 1: this one."""
        todo = [i for i in episodes if not self._is_whole(dataset, i)]
        job = partial(_build_one, self, dataset, prepare)
        with ExitStack() as stack:
            done: Iterable[None] = map(job, todo)
            if workers > 1 and len(todo) > 1:
                pool = stack.enter_context(ProcessPoolExecutor(workers, get_context("spawn")))
                done = pool.map(job, todo)
            for _ in tqdm(done, "prepare frames", len(todo), unit="demo", mininterval=5):
                pass

    def path(self, episode: int) -> Path:
        """The file of one episode."""
        return self.folder / f"{episode:06d}.bin"

    @property
    def step_bytes(self) -> int:
        """Bytes of one step: all cameras."""
        return len(self.cameras) * self.size * self.size * 3

    def _is_whole(self, dataset: RobotDataset, episode: int) -> bool:
        wanted = dataset.episodes[episode].length * self.step_bytes
        path = self.path(episode)
        return path.is_file() and path.stat().st_size == wanted

    def reader(self) -> "FrameReader":
        """An object that reads samples."""
        return FrameReader(self)


def _build_one(cache: FrameCache, dataset: RobotDataset, prepare: Prepare, index: int) -> None:
    frames = np.stack([prepare(dataset.frames(index, c)) for c in cache.cameras], axis=1)
    episode = dataset.episodes[index]
    if len(frames) != episode.length:
        raise UserError(
            f"{episode.name}: {len(frames)} pictures for {episode.length} steps: the data is torn"
        )
    with atomic_file(cache.path(index)) as temporary:
        frames.tofile(temporary)


class FrameReader:
    """Reads single steps of a cache; keeps some files open. Not for use by several threads."""

    def __init__(self, cache: FrameCache) -> None:
        self._cache = cache
        self._files: OrderedDict[int, int] = OrderedDict()

    def __call__(self, episodes: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """uint8 (B, V, S, S, 3): step steps[i] of episode episodes[i]."""
        cache, size = self._cache, self._cache.step_bytes
        out = np.empty((len(episodes), size), np.uint8)
        for row, episode, step in zip(out, episodes, steps, strict=True):
            found = os.preadv(self._file(int(episode)), [row.data], int(step) * size)
            if found != size:
                raise UserError(f"{cache.path(int(episode))} is torn: remove it and run again")
        return out.reshape(-1, len(cache.cameras), cache.size, cache.size, 3)

    def _file(self, episode: int) -> int:
        if episode in self._files:
            self._files.move_to_end(episode)
            return self._files[episode]
        if len(self._files) >= _OPEN_FILES:
            os.close(self._files.popitem(last=False)[1])
        self._files[episode] = os.open(self._cache.path(episode), os.O_RDONLY)
        return self._files[episode]

    def __del__(self) -> None:
        for descriptor in self._files.values():
            os.close(descriptor)
