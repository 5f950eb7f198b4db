"""Writing videos whose bytes depend on the frames alone."""

from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np

from invact_vla.core.files import atomic_file

# mbtree=0: with macroblock trees libx264 gives different bytes for equal frames, even in one thread
X264 = {"preset": "veryfast", "x264-params": "threads=1:lookahead_threads=1:mbtree=0"}
VP9 = {"deadline": "realtime", "cpu-used": "8", "b": "0"}
ENCODERS = {"h264": ("libx264", "mp4", X264), "vp9": ("libvpx-vp9", "webm", VP9)}


def write_video(
    path: Path,
    frames: np.ndarray,
    fps: float,
    codec: Literal["h264", "vp9"] = "h264",
    crf: int = 23,
    gop: int | None = None,
) -> None:
    """Write frames, uint8 (T, H, W, 3) RGB with even H and W, atomically and deterministically.

    One encoder thread and no time stamps of the day: equal frames give equal bytes. gop: frames from
    one key frame to the next, for random access; none given: the codec's own."""
    import av
    from av.codec.context import Flags

    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not len(frames):
        raise ValueError(f"expected uint8 (T, H, W, 3), got {frames.dtype} {frames.shape}")
    name, form, options = ENCODERS[codec]
    exact = {"fflags": "+bitexact"}
    with atomic_file(path) as temporary, av.open(str(temporary), "w", form, exact) as container:
        rate = Fraction(fps).limit_denominator(1000)
        stream: Any = container.add_stream(name, rate=rate, options={**options, "crf": str(crf)})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        if gop is not None:
            stream.gop_size = gop
        stream.codec_context.flags |= Flags.bitexact
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
