"""Decoding video: the only door to PyAV for reading. Frames come out as uint8 (T, H, W, 3) RGB.

Frame indices count the frames that the decoder puts out, in display order, from 0.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from invact_vla.errors import UserError

Fit = Literal["crop", "squash"]


class VideoError(UserError):
    """A video that is missing, truncated or corrupt; the message names the file."""


@dataclass(frozen=True)
class VideoInfo:
    """Length of a video. n_frames: frames in the file; fps: frames a second; height, width:
    pixels.
    """

    n_frames: int
    fps: float
    height: int
    width: int


def probe(path: Path) -> VideoInfo:
    """Count the frames of a video without decoding it. Raises VideoError.

    Packets are counted, since WebM files state no frame count and truncated MP4 files a wrong one.
    """
    with _opened(path) as (container, stream):
        n_frames = sum(1 for packet in container.demux(stream) if packet.size)
        rate = stream.average_rate or stream.guessed_rate
        if not n_frames or not rate:
            raise VideoError(f"no frames in {path}: expected a playable video; fetch it again")
        return VideoInfo(n_frames, float(rate), stream.height, stream.width)


def decode_frames(
    path: Path, indices: Sequence[int] | np.ndarray, size: int | None = None, fit: Fit = "crop"
) -> np.ndarray:
    """Decode the frames with the given indices (any order, repeats allowed), in one pass.

    size: side of the square output, or None for the video's own size. fit: "crop" scales the short
    side to `size` and cuts the centre, "squash" ignores the aspect ratio. Returns uint8 (T, H, W,
    3). Raises VideoError if the file is damaged or ends before the last wanted frame.
    """
    wanted = np.asarray(indices, np.int64)
    if wanted.ndim != 1 or not wanted.size or wanted.min() < 0:
        raise ValueError(f"expected a non-empty list of frame indices >= 0, got {wanted}")
    needed, last = set(wanted.tolist()), int(wanted.max())
    frames: dict[int, np.ndarray] = {}
    with _opened(path) as (container, stream):
        count = 0
        for frame in container.decode(stream):
            if count in needed:
                frames[count] = _to_array(frame, size, fit)
            count += 1
            if count > last:
                break
    if count <= last:
        raise VideoError(
            f"{path} ends after {count} frames, frame {last} was wanted: "
            "the file is truncated; fetch it again"
        )
    return np.stack([frames[int(index)] for index in wanted])


def decode_all(path: Path, size: int | None = None, fit: Fit = "crop") -> np.ndarray:
    """All frames of a (short) video, uint8 (T, H, W, 3). Raises VideoError."""
    with _opened(path) as (container, stream):
        frames = [_to_array(frame, size, fit) for frame in container.decode(stream)]
    if not frames:
        raise VideoError(f"no frames in {path}: expected a playable video; fetch it again")
    return np.stack(frames)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """Open a video and its first picture stream; every complaint of FFmpeg becomes a VideoError."""
    import av

    if not Path(path).is_file():
        raise VideoError(f"no video file {path}: correct the path, or fetch the file")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise VideoError(f"no picture stream in {path}: expected a video file")
            stream = container.streams.video[0]
            # one thread: callers run many processes, and 64-128 px frames decode in microseconds
            stream.thread_count = 1
            yield container, stream
    except (av.FFmpegError, EOFError) as error:
        raise VideoError(
            f"cannot decode {path} ({error}): the file is truncated or corrupt; fetch it again"
        ) from error


def _to_array(frame: Any, size: int | None, fit: Fit) -> np.ndarray:
    """One decoded frame as RGB, scaled with area averaging (no aliasing when shrinking)."""
    if size is None:
        return frame.to_ndarray(format="rgb24")
    height, width = frame.height, frame.width
    if fit == "squash":
        height = width = size
    else:
        scale = size / min(height, width)
        height, width = max(size, round(height * scale)), max(size, round(width * scale))
    array = frame.to_ndarray(format="rgb24", height=height, width=width, interpolation="AREA")
    top, left = (height - size) // 2, (width - size) // 2
    return array[top : top + size, left : left + size]
