"""A picture of the committed tokens: clips as rows of frames, what each special token holds in its
color.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from invact_vla.core.files import atomic_file

# action token in orange-red, registers in muted colors
COLORS = np.array(
    [[255, 80, 0], [40, 90, 160], [60, 140, 90], [130, 80, 150], [90, 130, 150], [150, 140, 60],
     [110, 110, 110], [160, 90, 110], [70, 70, 120]], np.float32,
)  # fmt: skip
_SCALE = 2  # enlargement of the frames
_GAP = 4  # pixels between clips


def committed_picture(frames: np.ndarray, committed: np.ndarray, path: Path) -> None:
    """Draw clips over their tokens and save a PNG.

    frames: uint8 (N, T, H, W, 3); committed: int (N, T', H', W'), 0 = action. Each clip is two
    rows: the frames, and the frames with non-action tokens dimmed in their register's color. T'
    must divide T.
    """
    strips = []
    for clip, tokens in zip(frames, committed, strict=True):
        plain = _enlarge(clip)
        places = _spread(tokens, clip.shape[0], plain.shape[1:3])
        color = COLORS[places % len(COLORS)]
        weight = np.where(places == 0, 0.25, 0.7)[..., None]
        marked = (plain * (1 - weight) + color * weight).astype(np.uint8)
        strips += [np.concatenate(list(plain), axis=1), np.concatenate(list(marked), axis=1)]
        strips.append(np.full((_GAP, strips[-1].shape[1], 3), 255, np.uint8))
    with atomic_file(path) as temporary:
        Image.fromarray(np.concatenate(strips[:-1])).save(temporary)


def _enlarge(clip: np.ndarray) -> np.ndarray:
    return clip.repeat(_SCALE, axis=1).repeat(_SCALE, axis=2)


def _spread(tokens: np.ndarray, frames: int, size: tuple[int, int]) -> np.ndarray:
    """(T', H', W') -> (T, H, W) by nearest neighbor."""
    t, h, w = tokens.shape
    rows = np.arange(size[0]) * h // size[0]
    columns = np.arange(size[1]) * w // size[1]
    times = np.arange(frames) * t // frames
    return tokens[times][:, rows][:, :, columns]
