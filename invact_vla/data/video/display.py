"""Decoded frames as a player shows them: turned by its display matrix, with square pixels."""

import struct
from typing import Any, Literal

import numpy as np

from invact_vla.data.source_files import check_pixels

Fit = Literal["crop", "squash"]


class Display:
    """Makes arrays of the frames of one video.

    pixel_aspect: width over height of a stored pixel. The display matrix is that of the first frame; the
    scaler is made once, which costs more than scaling a small frame."""

    def __init__(self, pixel_aspect: float = 1.0) -> None:
        from av.video.reformatter import VideoReformatter

        self._aspect, self._scaler = pixel_aspect, VideoReformatter()
        self._turn: tuple[bool, int, int] | None = None

    def to_array(self, frame: Any, size: int | None, fit: Fit) -> np.ndarray:
        """A frame of PyAV as uint8 (H, W, 3) RGB.

        size: side of the square output, or None for the frame's own size (with square pixels). fit:
        "crop" scales the short side to `size` with area averaging (no aliasing when shrinking) and cuts
        the center; "squash" ignores the aspect ratio and scales with torchvision's bilinear filter, as
        LAPA's images are."""
        check_pixels("a frame in the middle of a video", frame.height, frame.width)
        if size is not None and fit == "squash":
            return _squashed(self._rgb(frame, frame.height, frame.width), size)
        height, width = _scaled(frame.height, frame.width, size, self._aspect)
        check_pixels("a frame in the middle of a video", height, width)
        array = self._rgb(frame, height, width)
        if size is None:
            return array
        top, left = (array.shape[0] - size) // 2, (array.shape[1] - size) // 2
        return array[top : top + size, left : left + size]

    def _rgb(self, frame: Any, height: int, width: int) -> np.ndarray:
        """Scaled to height and width, then turned: uint8 RGB."""
        if self._turn is None:
            self._turn = _turn_of(frame)
        how = "BILINEAR" if (height, width) == (frame.height, frame.width) else "AREA"
        scaled = self._scaler.reformat(
            frame, format="rgb24", height=height, width=width, interpolation=how, threads=1
        )
        transposed, down, right = self._turn
        array = scaled.to_ndarray()
        array = array.transpose(1, 0, 2) if transposed else array
        return np.ascontiguousarray(array[::down, ::right])


def _squashed(array: np.ndarray, size: int) -> np.ndarray:
    """Bilinear, antialiased: torch's filter for bytes gives Pillow's pixels (one in 10,000 differs
    by 1 of 255) several times faster."""
    from torch import from_numpy
    from torch.nn.functional import interpolate

    image = from_numpy(array).permute(2, 0, 1)[None]
    scaled = interpolate(image, (size, size), mode="bilinear", antialias=True)
    return np.ascontiguousarray(scaled[0].permute(1, 2, 0).numpy())


def _scaled(height: int, width: int, size: int | None, pixel_aspect: float) -> tuple[int, int]:
    """Height and width to scale a stored frame to, before it is turned and cut."""
    # the short way of a pixel is stretched: nothing is lost
    high, wide = height / min(pixel_aspect, 1), width * max(pixel_aspect, 1)
    if size is None:
        return round(high), round(wide)
    scale = size / min(high, wide)
    return max(size, round(high * scale)), max(size, round(wide * scale))


def _turn_of(frame: Any) -> tuple[bool, int, int]:
    """(whether rows become columns, then steps down and right, 1 or -1) of a frame's display matrix,
    to the nearest quarter turn.

    The matrix [a b; c d] puts the pixel at (x, y), y down, to (a x + c y, b x + d y).
    Source: ISO/IEC 14496-12, track header; libavutil/display.h."""
    from av.sidedata.sidedata import Type

    matrix = frame.side_data.get(Type.DISPLAYMATRIX)
    if matrix is None:
        return False, 1, 1
    a, b, _, c, d = struct.unpack("=5i", bytes(matrix)[:20])
    transposed = abs(b) + abs(c) > abs(a) + abs(d)
    right, down = (c, b) if transposed else (a, d)
    return transposed, -1 if down < 0 else 1, -1 if right < 0 else 1
