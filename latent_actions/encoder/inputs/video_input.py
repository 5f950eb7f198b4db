"""What people have, as clips that an encoder reads: frames in any of the usual forms, or a video file.

N clips, F frames of a video, T frames of a clip, K clips of a video.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image

from invact_vla.data.source_files import check_pixels
from invact_vla.data.video.frames import decode_frames, probe
from invact_vla.data.video.video_info import clip_frames
from invact_vla.untrusted.arrays import as_rgb

# frames, a list of frames, a path, or a list of such videos
Video: TypeAlias = np.ndarray | torch.Tensor | Image.Image | str | Path | Sequence[Any]


def videos_in(video: Video) -> list[Any] | None:
    """The videos of a list of them: paths, arrays of more dimensions than a frame has, lists of frames.
    None for one video, which a list of frames is too."""
    if not isinstance(video, list | tuple):
        return None
    are = {isinstance(v, str | Path | list | tuple) or getattr(v, "ndim", 0) > 3 for v in video}
    if len(are) > 1:
        raise ValueError("expected a list of frames or a list of videos, got both in one list")
    return list(video) if are == {True} else None


def as_clips(video: Video, frames: int, size: int, clip_s: float | None = None) -> np.ndarray:
    """uint8 clips (N, T, H, W, 3), T = frames.

    video: clips (N, T, H, W, 3), which come back uncut in time; one video (F, H, W, 3) of any length, or
    a list of its frames; or the path of a video file or of a folder of pictures. Frames are arrays,
    tensors or PIL images, uint8 or float in [0, 1], channels last or first. A video is one clip, its T
    frames spread over all of it (the frames at the midpoints of T equal parts; a short one repeats
    frames). With `clip_s` a file is cut into K = ceil(duration / clip_s) clips of that many seconds, the
    last one shorter. Files are scaled and cut to `size` pixels, arrays are cut to their central
    square, as files are. Raises ValueError on other values or another shape, VideoError (a UserError)
    on a file that is missing or damaged.
    """
    if isinstance(video, str | Path):
        return _file_clips(Path(video), frames, size, clip_s)
    if clip_s is not None:
        raise ValueError("clip_s needs a video file: frames without a rate have no seconds")
    pixels = _stacked(video) if isinstance(video, list | tuple) else _pixels(video)
    if pixels.dtype != np.uint8 or pixels.ndim not in (4, 5) or pixels.shape[-1] != 3:
        raise ValueError(
            f"expected clips (N, {frames}, H, W, 3), one video (F, H, W, 3), uint8 or float in [0, 1], "
            f"a list of frames, or the path of a video file, got {pixels.dtype} {pixels.shape}"
        )
    if not all(pixels.shape[-4:]):
        raise ValueError(f"expected at least one frame, of at least one pixel, got {pixels.shape}")
    if pixels.ndim == 5:
        return _central_square(pixels)
    return _central_square(pixels[clip_frames(0, len(pixels), 1.0, len(pixels), frames)][None])


def _stacked(frames: Sequence[Any]) -> np.ndarray:
    """A list of frames as one array."""
    found = [_pixels(frame) for frame in frames]
    shapes = sorted({frame.shape for frame in found})
    if len(shapes) != 1 or len(shapes[0]) != 3:
        raise ValueError(f"expected a list of frames (H, W, 3) of one size, got {shapes or 'none'}")
    return np.stack(found)


def _pixels(frames: Any) -> np.ndarray:
    """Frames with channels last, uint8 where they were in [0, 1]; one PIL image is a frame."""
    if isinstance(frames, Image.Image):
        return as_rgb(frames)
    if isinstance(frames, torch.Tensor):
        frames = frames.detach().cpu()
        frames = (frames.float() if frames.is_floating_point() else frames).numpy()
    pixels = np.asarray(frames)
    if pixels.ndim > 2 and pixels.shape[-1] != 3 and pixels.shape[-3] == 3:
        pixels = np.moveaxis(pixels, -3, -1)
    if pixels.dtype.kind != "f" or not pixels.size:
        return pixels
    low, high = pixels.min(), pixels.max()
    if not (low >= 0 and high <= 1):
        raise ValueError(
            f"expected float frames in [0, 1], got {low:.4g} to {high:.4g}: divide by 255, undo a "
            "normalization, or give uint8"
        )
    return np.rint(pixels * np.float32(255)).astype(np.uint8)


def _central_square(clips: np.ndarray) -> np.ndarray:
    height, width = clips.shape[2:4]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return clips[:, :, top : top + side, left : left + side]


def _file_clips(path: Path, frames: int, size: int, clip_s: float | None) -> np.ndarray:
    info = probe(path)
    duration_s = info.duration_s
    each_s = duration_s if clip_s is None else clip_s
    if not 0 < each_s < math.inf:
        raise ValueError(f"clip_s must be positive, got {clip_s}")
    # 1e-6: a video of exactly 4 s is two clips of 2 s, not three
    count = max(1, math.ceil(duration_s / each_s - 1e-6))
    check_pixels(f"{path}, cut into clips of {each_s:g} s", size, size, count * frames)
    spans = [(i * each_s, min((i + 1) * each_s, duration_s)) for i in range(count)]
    length = info.fps, info.n_frames
    picks = [clip_frames(*span, *length, frames, info.times) for span in spans]
    decoded = decode_frames(path, np.concatenate(picks), size, info=info)
    return decoded.reshape(count, frames, *decoded.shape[1:])
