"""A decoded frame as a player shows it: turned by its display matrix, with square pixels."""

import struct
from typing import Any, Literal

import numpy as np
from PIL import Image

from invact_vla.data.source_files import check_pixels

Fit = Literal["crop", "squash"]


def to_array(frame: Any, size: int | None, fit: Fit, pixel_aspect: float = 1.0) -> np.ndarray:
    """A frame of PyAV as uint8 (H, W, 3) RGB.

    size: side of the square output, or None for the frame's own size (with square pixels). fit: "crop"
    scales the short side to `size` with area averaging (no aliasing when shrinking) and cuts the center;
    "squash" ignores the aspect ratio and scales with Pillow's bilinear filter, as torchvision resizes
    images for LAPA. pixel_aspect: width over height of a stored pixel.
    """
    check_pixels("a frame in the middle of a video", frame.height, frame.width)
    if size is not None and fit == "squash":
        image = Image.fromarray(_turned(frame.to_ndarray(format="rgb24"), frame))
        return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
    height, width = _scaled(frame.height, frame.width, size, pixel_aspect)
    check_pixels("a frame in the middle of a video", height, width)
    if size is None and pixel_aspect == 1:
        return _turned(frame.to_ndarray(format="rgb24"), frame)
    array = frame.to_ndarray(format="rgb24", height=height, width=width, interpolation="AREA")
    array = _turned(array, frame)
    if size is None:
        return array
    top, left = (array.shape[0] - size) // 2, (array.shape[1] - size) // 2
    return array[top : top + size, left : left + size]


def _scaled(height: int, width: int, size: int | None, pixel_aspect: float) -> tuple[int, int]:
    """Height and width to scale a stored frame to, before it is turned and cut."""
    if pixel_aspect == 1:
        high, wide = float(height), float(width)
    else:  # the short way of a pixel is stretched: nothing is lost
        high, wide = height / min(pixel_aspect, 1), width * max(pixel_aspect, 1)
    if size is None:
        return round(high), round(wide)
    scale = size / min(high, wide)
    return max(size, round(high * scale)), max(size, round(wide * scale))


def _turned(array: np.ndarray, frame: Any) -> np.ndarray:
    """Turned and mirrored as the frame's display matrix says, to the nearest quarter turn.

    The matrix [a b; c d] puts the pixel at (x, y), y down, to (a x + c y, b x + d y).
    Source: ISO/IEC 14496-12, track header; libavutil/display.h.
    """
    from av.sidedata.sidedata import Type

    matrix = frame.side_data.get(Type.DISPLAYMATRIX)
    if matrix is None:
        return array
    a, b, _, c, d = struct.unpack("=5i", bytes(matrix)[:20])
    if abs(b) + abs(c) > abs(a) + abs(d):
        array, right, down = array.transpose(1, 0, 2), c, b
    else:
        right, down = a, d
    array = array[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1]
    return np.ascontiguousarray(array)
