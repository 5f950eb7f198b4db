"""Committed patches against masks of hand and object: intersection over union, and what chance gives.

B clips, N = T' H' W' patch tokens.
"""

import numpy as np
from scipy.stats import hypergeom


def token_coverage(masks: np.ndarray, grid: tuple[int, int, int]) -> np.ndarray:
    """Share of every token's pixels that lie in the mask, over its frames and its square.

    masks: bool (T, H, W), T a multiple of T'; any H, W: pixels are counted in the token that holds
    their middle -> float64 (T', H', W') in [0, 1].
    """
    frames, height, width = masks.shape
    if frames % grid[0] or height < grid[1] or width < grid[2]:
        raise ValueError(f"masks {masks.shape} do not cover a grid {grid}")
    row = ((np.arange(height) + 0.5) * grid[1] / height).astype(np.int64)
    column = ((np.arange(width) + 0.5) * grid[2] / width).astype(np.int64)
    time = np.arange(frames) * grid[0] // frames
    place = (time[:, None, None] * grid[1] + row[None, :, None]) * grid[2] + column[None, None]
    size = int(np.prod(grid))
    inside = np.bincount(place.ravel(), weights=masks.ravel(), minlength=size)
    return (inside / np.bincount(place.ravel(), minlength=size)).reshape(grid)


def overlap(action: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """IoU of two token sets a clip, 0 where both are empty: bool (B, N) twice -> float64 (B,)."""
    both = (action & mask).sum(axis=1)
    return both / np.maximum((action | mask).sum(axis=1), 1)


def chance_overlap(tokens: int, chosen: np.ndarray, masked: np.ndarray) -> np.ndarray:
    """Expected IoU of a random set of the same size with the mask, exactly.

    tokens: N; chosen, masked: int (B,), sizes of the sets -> float64 (B,). The intersection of a
    random set is hypergeometric: sum_i P(i) i / (chosen + masked - i).
    """
    expected = np.zeros(len(chosen))
    for place, (k, m) in enumerate(zip(chosen.tolist(), masked.tolist(), strict=True)):
        both = np.arange(max(0, k + m - tokens), min(k, m) + 1)
        either = np.maximum(k + m - both, 1)
        expected[place] = float((hypergeom.pmf(both, tokens, m, k) * both / either).sum())
    return expected
