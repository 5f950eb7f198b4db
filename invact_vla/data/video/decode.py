"""Frames of video files as a player shows them: the only door to PyAV for reading. They come out as
uint8 (T, H, W, 3) RGB, turned by the display matrix and with square pixels.

Frame indices count the frames that are shown, from 0 (see video_info.py). A video may lie inside an
HDF5 file (see hdf5_file.py): its path then goes on into that file. For whatever else counts as a
video, see frames.py.
"""

import io
import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from invact_vla.core.limits import refuse_pointer, short
from invact_vla.data.hdf5_file import VideoError, read_embedded
from invact_vla.data.source_files import check_pixels, stack_alike
from invact_vla.data.video.display import Display, Fit
from invact_vla.data.video.video_info import VideoInfo, read_info

EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
BACK_S = (0, 1, 8)  # seconds before the wanted frame at which a key frame is looked for, in turn


def frame_indices(indices: Sequence[int] | np.ndarray) -> np.ndarray:
    """Indices of frames as int64 (n > 0,); ValueError for others."""
    wanted = np.asarray(indices, np.int64)
    if wanted.ndim != 1 or not wanted.size or wanted.min() < 0:
        raise ValueError(f"expected a non-empty list of frame indices >= 0, got {indices}")
    return wanted


class Video:
    """An open video file. Made by `open_file`."""

    def __init__(self, path: Path, info: VideoInfo | None) -> None:
        self.path, self._info = path, info
        self._container: Any = None

    def open(self) -> None:
        """Open the file, anew if it is open. Raises VideoError without a stream that can be decoded."""
        import av
        from av.stream import Disposition

        self.close()
        self._container = av.open(_file_of(self.path))
        streams = list(self._container.streams.video)
        streams.sort(key=lambda s: bool(s.disposition & Disposition.attached_pic))  # covers last
        if not streams or streams[0].codec_context is None:
            raise VideoError(
                f"no stream that can be decoded in {self.path}: expected a whole video file of a "
                "common codec; fetch it again"
            )
        self._stream = streams[0]
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
        """Count and times of the frames, from the packets, since WebM files state no frame count and
        truncated MP4 files a wrong one: nothing is decoded in common files."""
        if self._info is None:
            self._info = read_info(self._whole(), self._stream, self._first_stamp)
        if self._info is None:
            raise self._no_frames()
        return self._info

    def _whole(self) -> Iterator[Any]:
        """All packets. VideoError where the file breaks off within one, or before the end of the segment
        that it announces: its beginning is no shorter film of the same action."""
        broken = _breaks_off(self.path)
        for packet in self._demuxed():
            if packet.is_corrupt or broken:
                raise VideoError(
                    f"{self.path} breaks off: the file is truncated or corrupt; fetch it again"
                )
            yield packet

    def frames(
        self,
        indices: Sequence[int] | np.ndarray,
        size: int | None = None,
        fit: Fit = "crop",
        seek: bool = False,
    ) -> np.ndarray:
        """The frames of the given indices, see `frames.decode_frames`."""
        wanted = frame_indices(indices)
        if seek and self._info is None:
            self._info = _remembered(self.path, file_stamp(self.path))
        side = self._stream.height, self._stream.width
        check_pixels(str(self.path), size or side[0], size or side[1], len(wanted))
        needed, found, count = set(wanted.tolist()), {}, 0
        for first in [min(needed), None] if seek else [None]:
            found, count = self._pick(self._numbered(first), needed, size, fit)
            if len(found) == len(needed):
                return stack_alike(str(self.path), [found[int(index)] for index in wanted])
            self.open()  # the key frame may be one that decoding cannot begin with
        raise VideoError(
            f"{self.path} ends after {count} frames, frame {max(needed - set(found))} was wanted: "
            "the file is truncated; fetch it again"
        )

    def all_frames(self, size: int | None = None, fit: Fit = "crop") -> np.ndarray:
        """All frames, see `frames.decode_all`."""
        frames: list[np.ndarray] = []
        for frame in self._from_start():
            check_pixels(str(self.path), size or frame.height, size or frame.width, len(frames) + 1)
            frames.append(self._display.to_array(frame, size, fit))
        if not frames:
            raise self._no_frames()
        return stack_alike(str(self.path), frames)

    def _no_frames(self) -> VideoError:
        return VideoError(f"no frames in {self.path}: expected a playable video; fetch it again")

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

        Indices are told by time stamps, or counted where the stamps are not known: AVI has none of its
        own, and those that FFmpeg makes up are in the order of decoding."""
        if self._container.format.name == "avi" and self._stream.codec_context.has_b_frames:
            yield from enumerate(self._from_start())
            return
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
        return _decoded(self._demuxed())

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
            frames = _decoded(itertools.chain([key], packets), key.pts)
            landed = next(frames, None)
            if landed is not None and landed.pts is not None and landed.pts <= target:
                return itertools.chain([landed], frames)
        self.open()
        return _decoded(self._demuxed())

    def _first_stamp(self) -> int | None:
        self.open()
        first = next(_decoded(self._demuxed()), None)
        return None if first is None else first.pts

    def _demuxed(self) -> Iterator[Any]:
        self._untouched = False
        return self._container.demux(self._stream)


def _decoded(packets: Iterator[Any], key: int | None = None) -> Iterator[Any]:
    """Frames of packets, without what is shown before the key frame and needs what lies before."""
    for packet in packets:
        for frame in packet.decode():
            if key is None or frame.pts is None or frame.pts >= key:
                yield frame


@contextmanager
def open_file(path: Path, info: VideoInfo | None = None) -> Iterator[Video]:
    """Open a video file and its first picture stream; every complaint of FFmpeg becomes a VideoError.

    info: of the video, if it is known: saves reading all packets to number frames."""
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


@lru_cache(maxsize=8)  # episodes of one file are read one after the other
def _remembered(path: Path, _stamp: tuple[int, int] | None) -> VideoInfo:
    with open_file(path) as video:
        return video.info


def file_stamp(path: Path) -> tuple[int, int] | None:
    """(bytes, time of change in ns) of a file; of the file around it if the video lies inside one."""
    for place in (Path(path), *Path(path).parents[:3]):
        if place.is_file():
            stat = place.stat()
            return stat.st_size, stat.st_mtime_ns
    return None


def _breaks_off(path: Path) -> bool:
    """Whether a Matroska or WebM file is shorter than its segment says; others do not say it.

    Source: RFC 8794, variable-size integers; RFC 9559, the segment."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        head = file.read(4096)
    start = head.find(SEGMENT) + len(SEGMENT)
    if not head.startswith(EBML) or start < len(SEGMENT) or not any(head[start : start + 1]):
        return False
    length = 9 - head[start].bit_length()
    unknown = (1 << 7 * length) - 1
    size = int.from_bytes(head[start : start + length], "big") & unknown
    return size != unknown and start + length + size > path.stat().st_size


def _file_of(path: Path) -> str | io.BytesIO:
    """What PyAV opens."""
    if not Path(path).is_file():
        return io.BytesIO(read_embedded(path))
    refuse_pointer(path)
    return os.path.abspath(path)  # 10:22:33.mp4 is no address of a protocol 10
