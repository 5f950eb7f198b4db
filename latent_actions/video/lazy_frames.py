"""Frames that are decoded when they are read: an array of clips without the memory of one."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from invact_vla.data.video.display import Fit
from invact_vla.data.video.frames import decode_frames
from invact_vla.data.video.video_info import VideoInfo


class LazyFrames:
    """N clips, uint8 (N, T, size, size, 3) to index by a row or by rows; reading decodes.

    videos: the file of every row; infos: what probing it gave; wanted: its frame indices,
    int64 (T,). Reading jumps to the key frame before the clip, so its cost does not grow with the length
    of the video. Raises VideoError if a file is damaged: no other clip is put in its place.
    """

    dtype = np.dtype(np.uint8)

    def __init__(
        self,
        videos: Sequence[Path],
        infos: Sequence[VideoInfo],
        wanted: Sequence[np.ndarray],
        size: int,
        fit: Fit = "crop",
    ) -> None:
        self.videos, self.infos = list(videos), list(infos)
        self.wanted, self.size = list(wanted), size
        self.fit: Fit = fit

    def __len__(self) -> int:
        return len(self.videos)

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        length = len(self.wanted[0]) if self.wanted else 0
        return (len(self.videos), length, self.size, self.size, 3)

    def __getitem__(self, rows: int | slice | Sequence[int] | np.ndarray) -> np.ndarray:
        picked = np.arange(len(self))[rows]
        if picked.ndim == 0:
            return self._read(int(picked))
        shape = (len(picked), *self.shape[1:])
        return (
            np.stack([self._read(int(i)) for i in picked])
            if len(picked)
            else np.zeros(shape, self.dtype)
        )

    def _read(self, row: int) -> np.ndarray:
        info = self.infos[row]
        return decode_frames(
            self.videos[row], self.wanted[row], self.size, self.fit, seek=True, info=info
        )
