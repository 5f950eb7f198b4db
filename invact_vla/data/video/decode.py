"""Decoding video: the only door to PyAV for reading. Frames come out as uint8 (T, H, W, 3) RGB.

Frame indices count the frames that the decoder puts out, in display order, from 0. A video may lie
inside an HDF5 file (see hdf5_video.py): its path then goes on into that file.
"""

import io
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from invact_vla.core.errors import UserError
from invact_vla.core.limits import refuse_pointer, short
from invact_vla.data.source_files import check_pixels, stack_alike
from invact_vla.data.video.hdf5_video import read_embedded

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
    path: Path,
    indices: Sequence[int] | np.ndarray,
    size: int | None = None,
    fit: Fit = "crop",
    seek: bool = False,
) -> np.ndarray:
    """Decode the frames with the given indices (any order, repeats allowed), in one pass.

    size: side of the square output, or None for the video's own size. fit: "crop" scales the short
    side to `size` and cuts the center, "squash" ignores the aspect ratio. seek: start at the key
    frame before the first wanted frame and number frames by their time stamps, which is right for
    videos of constant frame rate. Returns uint8 (T, H, W, 3). Raises VideoError if the file is
    damaged or ends before the last wanted frame.
    """
    wanted = np.asarray(indices, np.int64)
    if wanted.ndim != 1 or not wanted.size or wanted.min() < 0:
        raise ValueError(f"expected a non-empty list of frame indices >= 0, got {wanted}")
    needed, last = set(wanted.tolist()), int(wanted.max())
    frames: dict[int, np.ndarray] = {}
    with _opened(path) as (container, stream):
        check_pixels(str(path), size or stream.height, size or stream.width, len(wanted))
        count = 0
        numbered = (
            _from_key_frame(container, stream, int(wanted.min()))
            if seek
            else enumerate(container.decode(stream))
        )
        for number, frame in numbered:
            if number in needed:
                frames[number] = _to_array(frame, size, fit)
            count = number + 1
            if count > last:
                break
    if len(frames) < len(needed):
        raise VideoError(
            f"{path} ends after {count} frames, frame {last} was wanted: "
            "the file is truncated; fetch it again"
        )
    return stack_alike(str(path), [frames[int(index)] for index in wanted])


def _from_key_frame(container: Any, stream: Any, first: int) -> Iterator[tuple[int, Any]]:
    """(index, frame) from the last key frame at or before frame `first`, by time stamps; from the
    start where the jump lands behind it, as AVI's index makes it with B-frames."""
    start = next(container.decode(stream)).pts  # stream.start_time is wrong for those, too
    per_frame = 1 / float(stream.time_base * (stream.average_rate or stream.guessed_rate))
    container.seek(start + int(first * per_frame), stream=stream)
    frames = container.decode(stream)
    landed = next(frames, None)
    if landed is None or landed.pts > start + (first + 0.5) * per_frame:
        container.seek(0, stream=stream)
        yield from enumerate(container.decode(stream))
        return
    for frame in itertools.chain([landed], frames):
        yield round((frame.pts - start) / per_frame), frame


def decode_all(path: Path, size: int | None = None, fit: Fit = "crop") -> np.ndarray:
    """All frames of a (short) video, uint8 (T, H, W, 3). Raises VideoError."""
    with _opened(path) as (container, stream):
        frames = []
        for frame in container.decode(stream):
            check_pixels(str(path), size or frame.height, size or frame.width, len(frames) + 1)
            frames.append(_to_array(frame, size, fit))
    if not frames:
        raise VideoError(f"no frames in {path}: expected a playable video; fetch it again")
    return stack_alike(str(path), frames)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """Open a video and its first picture stream; every complaint of FFmpeg becomes a VideoError."""
    import av

    try:
        with av.open(_file_of(path)) as container:
            if not container.streams.video:
                raise VideoError(f"no picture stream in {path}: expected a video file")
            stream = container.streams.video[0]
            # one thread: callers run many processes, and 64-128 px frames decode in microseconds
            if stream.codec_context is None:
                raise VideoError(f"no decoder for {path}: expected a video of a common codec")
            stream.thread_count = 1
            check_pixels(str(path), stream.height, stream.width)
            yield container, stream
    except (av.FFmpegError, EOFError, ArithmeticError, StopIteration) as error:
        raise VideoError(
            f"cannot decode {path} ({short(error)}): the file is truncated or corrupt; fetch it again"
        ) from error


def _file_of(path: Path) -> str | io.BytesIO:
    """What PyAV opens: the path of a file, or the bytes of a video inside an HDF5 file."""
    if Path(path).is_file():
        refuse_pointer(path)
        return str(path)
    try:
        embedded = read_embedded(path)
    except LookupError as error:
        raise VideoError(str(error.args[0])) from error
    if embedded is None:
        raise VideoError(f"no video file {path}: correct the path, or fetch the file")
    return io.BytesIO(embedded)


def _to_array(frame: Any, size: int | None, fit: Fit) -> np.ndarray:
    """One decoded frame as RGB. "crop" scales with area averaging (no aliasing when shrinking),
    "squash" with Pillow's bilinear filter, as torchvision resizes images for LAPA."""
    check_pixels("a frame in the middle of a video", frame.height, frame.width)
    if size is None:
        return frame.to_ndarray(format="rgb24")
    height, width = frame.height, frame.width
    if fit == "squash":
        image = Image.fromarray(frame.to_ndarray(format="rgb24"))
        return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
    scale = size / min(height, width)
    height, width = max(size, round(height * scale)), max(size, round(width * scale))
    array = frame.to_ndarray(format="rgb24", height=height, width=width, interpolation="AREA")
    top, left = (height - size) // 2, (width - size) // 2
    return array[top : top + size, left : left + size]
