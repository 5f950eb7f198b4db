"""What people have, as clips that an encoder reads: arrays of frames or a video file.

N clips, F frames of a video, T frames of a clip, K clips of a video.
"""

import math
from pathlib import Path

import numpy as np

from invact_vla.data.video.frames import decode_frames, probe
from invact_vla.data.video.video_info import clip_frames


def as_clips(
    video: np.ndarray | str | Path, frames: int, size: int, clip_s: float | None = None
) -> np.ndarray:
    """uint8 clips (N, T, H, W, 3), T = frames.

    video: clips uint8 (N, T, H, W, 3), which come back uncut in time; one video uint8 (F, H, W, 3) of
    any length; or the path of a video file or of a folder of pictures. A video is one clip, its T
    frames spread over all of it (the frames at the midpoints of T equal parts; a short one repeats
    frames). With `clip_s` a file
    is cut into K = ceil(duration / clip_s) clips of that many seconds, the last one shorter. Files
    are scaled and cut to `size` pixels, arrays are cut to their central square, as files are. Raises
    ValueError on another dtype or shape, VideoError (a UserError) on a file that is missing or
    damaged.
    """
    if isinstance(video, str | Path):
        return _file_clips(Path(video), frames, size, clip_s)
    if clip_s is not None:
        raise ValueError("clip_s needs a video file: frames without a rate have no seconds")
    if video.dtype != np.uint8 or video.ndim not in (4, 5) or video.shape[-1] != 3:
        raise ValueError(
            f"expected uint8 clips (N, {frames}, H, W, 3), one video (F, H, W, 3), or the path of a "
            f"video file, got {video.dtype} {video.shape}"
        )
    if video.ndim == 5:
        return _central_square(video)
    if not len(video):
        raise ValueError("expected a video of at least one frame, got none")
    return _central_square(video[clip_frames(0, len(video), 1.0, len(video), frames)][None])


def _central_square(clips: np.ndarray) -> np.ndarray:
    height, width = clips.shape[2:4]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return clips[:, :, top : top + side, left : left + side]


def _file_clips(path: Path, frames: int, size: int, clip_s: float | None) -> np.ndarray:
    info = probe(path)
    duration_s = info.duration_s
    each_s = duration_s if clip_s is None else clip_s
    if each_s <= 0:
        raise ValueError(f"clip_s must be positive, got {clip_s}")
    # 1e-6: a video of exactly 4 s is two clips of 2 s, not three
    count = max(1, math.ceil(duration_s / each_s - 1e-6))
    spans = [(i * each_s, min((i + 1) * each_s, duration_s)) for i in range(count)]
    length = info.fps, info.n_frames
    picks = [clip_frames(*span, *length, frames, info.times) for span in spans]
    decoded = decode_frames(path, np.concatenate(picks), size, info=info)
    return decoded.reshape(count, frames, *decoded.shape[1:])
