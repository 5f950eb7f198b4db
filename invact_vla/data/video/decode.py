"""Decoding video: the only door to PyAV for reading. Frames come out as uint8 (T, H, W, 3) RGB, turned
and with square pixels, as a player shows them.

Frame indices count the frames that are shown, from 0 (see video_info.py). A video may lie inside an
HDF5 file (see hdf5_video.py): its path then goes on into that file.
"""

import io
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from invact_vla.core.errors import UserError
from invact_vla.core.limits import refuse_pointer, short
from invact_vla.data.source_files import check_pixels, stack_alike
from invact_vla.data.video.display import Display, Fit
from invact_vla.data.video.hdf5_video import read_embedded
from invact_vla.data.video.video_info import VideoInfo, read_stamps, video_info

BACK_S = (0, 1, 8)  # seconds before the wanted frame at which a key frame is looked for, in turn


class VideoError(UserError):
    """A video that is missing, truncated or corrupt; the message names the file."""


class Video:
    """An open video. Made by `open_video`."""

    def __init__(self, path: Path, info: VideoInfo | None = None) -> None:
        self.path, self._info = path, info
        self._container: Any = None

    def open(self) -> None:
        """Open the file, anew if it is open. Raises VideoError without a stream that can be decoded."""
        import av
        from av.stream import Disposition

        self.close()
        self._container = av.open(_file_of(self.path))
        streams = self._container.streams.video
        attached = Disposition.attached_pic
        pictures = [s for s in streams if not s.disposition & attached] or list(streams)
        if not pictures:
            raise VideoError(
                f"no picture stream in {self.path}: expected a whole video file; fetch it again"
            )
        self._stream = pictures[0]
        if self._stream.codec_context is None:
            raise VideoError(f"no decoder for {self.path}: expected a video of a common codec")
        # one thread: callers run many processes, and 64-128 px frames decode in microseconds
        self._stream.thread_count = 1
        self._untouched = True
        self._display = Display(float(self._stream.sample_aspect_ratio or 1))
        check_pixels(str(self.path), self._stream.height, self._stream.width)

    def close(self) -> None:
        if self._container is not None:
            self._container.close()

    @property
    def info(self) -> VideoInfo:
        """Count and times of the frames, from the packets: nothing is decoded in common files."""
        if self._info is None:
            self._info = self._read_info()
        return self._info

    def _read_info(self) -> VideoInfo:
        """From packets, since WebM files state no frame count and truncated MP4 files a wrong one."""
        stamps = read_stamps(self._demuxed(), self._stream.time_base)
        start = stamps.shown[0] if stamps.certain else None
        if not stamps.certain and stamps.count:
            start = self._first_stamp()
            stamps = stamps.cut(start)
        info = video_info(stamps, start, self._stream)
        if info is None:
            raise VideoError(f"no frames in {self.path}: expected a playable video; fetch it again")
        return info

    def frames(
        self,
        indices: Sequence[int] | np.ndarray,
        size: int | None = None,
        fit: Fit = "crop",
        seek: bool = False,
    ) -> np.ndarray:
        """The frames of the given indices, see `decode_frames`."""
        wanted = np.asarray(indices, np.int64)
        if wanted.ndim != 1 or not wanted.size or wanted.min() < 0:
            raise ValueError(f"expected a non-empty list of frame indices >= 0, got {wanted}")
        side = self._stream.height, self._stream.width
        check_pixels(str(self.path), size or side[0], size or side[1], len(wanted))
        needed, first = set(wanted.tolist()), int(wanted.min())
        found, count = self._pick(self._numbered(first if seek else None), needed, size, fit)
        if seek and len(found) < len(needed):  # a key frame that decoding cannot begin with
            self.open()
            found, count = self._pick(self._numbered(None), needed, size, fit)
        if len(found) < len(needed):
            raise VideoError(
                f"{self.path} ends after {count} frames, frame {max(needed - set(found))} was wanted: "
                "the file is truncated; fetch it again"
            )
        return stack_alike(str(self.path), [found[int(index)] for index in wanted])

    def all_frames(self, size: int | None = None, fit: Fit = "crop") -> np.ndarray:
        """All frames, see `decode_all`."""
        frames: list[np.ndarray] = []
        for frame in self._from_start():
            check_pixels(str(self.path), size or frame.height, size or frame.width, len(frames) + 1)
            frames.append(self._display.to_array(frame, size, fit))
        if not frames:
            raise VideoError(f"no frames in {self.path}: expected a playable video; fetch it again")
        return stack_alike(str(self.path), frames)

    def _pick(
        self, numbered: Iterator[tuple[int, Any]], needed: set[int], size: int | None, fit: Fit
    ) -> tuple[dict[int, np.ndarray], int]:
        """The needed frames as arrays, and how many frames the video has as far as it was read."""
        found: dict[int, np.ndarray] = {}
        count, last = 0, max(needed)
        for number, frame in numbered:
            if number in needed and number not in found:
                found[number] = self._display.to_array(frame, size, fit)
            count = number + 1
            if count > last:
                break
        return found, count

    def _numbered(self, first: int | None) -> Iterator[tuple[int, Any]]:
        """(index, frame), from the key frame before frame `first`, or from the start if it is None.

        Indices are told by time stamps, or counted where the stamps are not known.
        """
        info = self.info if first is not None else self._info
        start_s = None if info is None else info.start_s
        if info is not None and start_s is None:
            stamp = self._first_stamp()
            start_s = None if stamp is None else float(stamp * self._stream.time_base)
        if info is None or start_s is None:
            yield from enumerate(self._from_start())
            return
        tick = float(self._stream.time_base)
        if first is None:
            frames = self._from_start(round(start_s / tick))
        else:
            # half a frame later: stamps are rounded, and the frame before may be the key frame
            at_s = info.times_of([min(first, info.n_frames - 1)])[0]
            frames = self._from_key_frame(round((start_s + at_s) / tick))
        for number, frame in enumerate(frames):
            if frame.pts is not None:
                number = int(info.nearest([frame.pts * tick - start_s])[0])
            yield number, frame

    def _from_start(self, first: int | None = None) -> Iterator[Any]:
        """All frames. first: time stamp of the first, where it is known: saves opening anew."""
        if not self._untouched and first is not None:
            return self._from_key_frame(first)
        if not self._untouched:
            self.open()
        return self._decoded(self._demuxed())

    def _from_key_frame(self, target: int) -> Iterator[Any]:
        """Frames from the last key frame that is shown at or before time stamp `target`; from the
        start where none is found, as in AVI's index with B-frames."""
        import av

        for back_s in BACK_S:
            try:
                stamp = target - int(back_s / self._stream.time_base)
                self._container.seek(stamp, stream=self._stream)
            except av.FFmpegError:
                break
            packets = self._demuxed()
            key = next((packet for packet in packets if packet.is_keyframe), None)
            if key is None or (key.pts is not None and key.pts > target):
                continue
            frames = self._decoded(itertools.chain([key], packets), key.pts)
            landed = next(frames, None)
            if landed is not None and landed.pts is not None and landed.pts <= target:
                return itertools.chain([landed], frames)
        self.open()
        return self._decoded(self._demuxed())

    def _first_stamp(self) -> int | None:
        self.open()
        first = next(self._decoded(self._demuxed()), None)
        return None if first is None else first.pts

    def _demuxed(self) -> Iterator[Any]:
        self._untouched = False
        return self._container.demux(self._stream)

    @staticmethod
    def _decoded(packets: Iterator[Any], key: int | None = None) -> Iterator[Any]:
        """Frames of packets, without what is shown before the key frame and needs what lies before."""
        for packet in packets:
            for frame in packet.decode():
                if key is None or frame.pts is None or frame.pts >= key:
                    yield frame


@contextmanager
def open_video(path: Path, info: VideoInfo | None = None) -> Iterator[Video]:
    """Open a video and its first picture stream; every complaint of FFmpeg becomes a VideoError.

    info: what `probe` gave, if it is known: saves reading all packets to number frames.
    """
    import av

    video = Video(path, info)
    try:
        video.open()
        yield video
    except (av.FFmpegError, EOFError, ArithmeticError, StopIteration) as error:
        raise VideoError(
            f"cannot decode {path} ({short(error)}): the file is truncated or corrupt; fetch it again"
        ) from error
    finally:
        video.close()


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
    if the file is damaged or ends before the last wanted frame.
    """
    if seek and info is None:
        info = _remembered(path, file_stamp(path))
    with open_video(path, info) as video:
        return video.frames(indices, size, fit, seek)


def decode_at(
    path: Path,
    times_s: Sequence[float] | np.ndarray,
    size: int | None = None,
    fit: Fit = "crop",
    seek: bool = False,
) -> np.ndarray:
    """Decode the frames on screen at the given seconds, as `decode_frames`; times after the end give
    the last frame."""
    with open_video(path) as video:
        return video.frames(video.info.frames_at(times_s), size, fit, seek)


def decode_all(path: Path, size: int | None = None, fit: Fit = "crop") -> np.ndarray:
    """All frames of a (short) video, uint8 (T, H, W, 3). Raises VideoError."""
    with open_video(path) as video:
        return video.all_frames(size, fit)


@lru_cache(maxsize=8)  # episodes of one file are read one after the other
def _remembered(path: Path, stamp: tuple[int, int] | None) -> VideoInfo:
    return probe(path)


def file_stamp(path: Path) -> tuple[int, int] | None:
    """(bytes, time of change in ns) of a file; of the file around it if the video lies inside one."""
    for place in (Path(path), *Path(path).parents[:3]):
        if place.is_file():
            stat = place.stat()
            return stat.st_size, stat.st_mtime_ns
    return None


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
