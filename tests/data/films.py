"""Films as phones and cutting tools make them, written by PyAV, and a slow reading of them.

Frame k of a film has gray level 3 k in its lower half; its upper left quarter is white, so that its
orientation shows.
"""

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

TICK = Fraction(1, 1000)
HEIGHT, WIDTH = 48, 64


def picture(level: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    frame = np.full((height, width, 3), level, np.uint8)
    frame[: height // 2] = 0
    frame[: height // 2, : width // 2] = 255
    return frame


def write_film(
    path: Path,
    stamps_ms: Sequence[int],
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    rotation: int = 0,
    flip: tuple[bool, bool] = (False, False),
    pixel_aspect: Fraction | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """A film whose frame k is shown from stamps_ms[k] on. rotation: degrees by which players turn it,
    counterclockwise; flip: mirrored left to right, top to bottom, after that."""
    with av.open(str(path), "w", options=container_options) as container:
        stream: Any = container.add_stream(codec, rate=1000, options=options or {})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        stream.time_base = stream.codec_context.time_base = TICK
        stream.thread_count = 1
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        if rotation or any(flip):
            stream.set_display_rotation(rotation, hflip=flip[0], vflip=flip[1])
        for number, stamp in enumerate(stamps_ms):
            frame = av.VideoFrame.from_ndarray(picture(3 * number), format="rgb24")
            frame.pts, frame.time_base = stamp, TICK
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def cut_film(source: Path, path: Path, at_s: float) -> Path:
    """As `ffmpeg -ss at_s -c copy`: packets from the key frame before; an edit list hides those
    before at_s."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = old.streams.video[0]
        copied = new.add_stream_from_template(stream)
        first = round(at_s / stream.time_base)
        old.seek(first, stream=stream)
        for packet in old.demux(stream):
            if packet.size:
                packet.pts, packet.dts = packet.pts - first, packet.dts - first
                packet.stream = copied
                new.mux(packet)
    return path


def read_slowly(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(seconds (n,), gray levels (n,)) of the frames that are shown: everything is decoded, without the
    edit list, which is read from the file and applied here."""
    with av.open(str(path), options={"ignore_editlist": "1"}) as container:
        stream = container.streams.video[0]
        tick = float(stream.time_base)
        frames = [(f.pts, f.to_ndarray(format="rgb24")) for f in container.decode(stream)]
    frames.sort(key=lambda entry: entry[0])
    stamps = np.array([stamp for stamp, _ in frames])
    levels = np.array([np.median(image[HEIGHT // 2 + 2 :]) for _, image in frames])
    edit = edit_of(path)
    if edit is not None:
        first, length_s = edit
        seconds = (stamps - first) * tick
        shown = (seconds > -1e-9) & (seconds < length_s - 1e-9)
        stamps, levels = stamps[shown], levels[shown]
    return (stamps - stamps[0]) * tick, levels


def edit_of(path: Path) -> tuple[int, float] | None:
    """(first media time in ticks, seconds shown) of the only edit of an MP4 file that shows something;
    None without one."""
    content = path.read_bytes()
    place = content.find(b"elst")
    if place < 0:
        return None
    version, count = content[place + 4], struct.unpack_from(">I", content, place + 8)[0]
    layout = ">Qqi" if version else ">Iii"
    entries = [
        struct.unpack_from(layout, content, place + 12 + number * struct.calcsize(layout))
        for number in range(count)
    ]
    ((length, first, _),) = [entry for entry in entries if entry[1] >= 0]
    header = content.index(b"mvhd")
    scale = struct.unpack_from(">I", content, header + (24 if content[header + 4] else 16))[0]
    return first, length / scale


def on_screen(seconds: np.ndarray, times_s: Sequence[float]) -> list[int]:
    """The last frame that appears at or before each time."""
    return [int(np.flatnonzero(seconds <= time + 1e-6)[-1]) for time in times_s]
