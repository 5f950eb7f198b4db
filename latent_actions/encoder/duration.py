"""How long a clip lasts, beside its embedding, where clips are compared.

An encoder sees T frames of a clip whatever its length: what takes a second differs from what takes a
minute by how much its frames differ at most. The duration is written as the cosine and sine of its
logarithm at two rates, a vector of unit length. The cosine between two of them depends on their ratio
alone and falls with it: 1 for equal durations, 0.85 for twice, 0.33 for five, -0.13 for ten times.
Durations below SHORTEST are alike, and those above LONGEST: further out it would rise again.
"""

import numpy as np
from numpy.typing import ArrayLike

RATES = (0.5, 1.0)  # radians for each factor e of the duration
SHORTEST, LONGEST = 0.5, 19.0  # seconds
WIDTH = 2 * len(RATES)  # numbers of a duration


def duration_code(seconds: np.ndarray) -> np.ndarray:
    """Durations (N,) in seconds, positive -> float32 (N, WIDTH) of unit length."""
    if seconds.ndim != 1 or not (np.isfinite(seconds) & (seconds > 0)).all():
        raise ValueError(f"expected durations (N,) in seconds, positive, got {seconds!r}")
    angles = np.outer(np.log(np.clip(seconds, SHORTEST, LONGEST)), RATES)
    code = np.concatenate([np.cos(angles), np.sin(angles)], axis=1) / np.sqrt(len(RATES))
    return code.astype(np.float32)


def with_duration(vectors: np.ndarray, seconds: ArrayLike, weight: float) -> np.ndarray:
    """Vectors (N, D) of clips, none of them zero, and the clips' durations (N,) in seconds -> float32
    (N, D + WIDTH) of unit length: the embedding, and `weight` times the duration's vector beside it.

    The cosine of two clips is that of their embeddings, plus weight^2 times that of their durations,
    over 1 + weight^2."""
    known = np.asarray(seconds, np.float64)
    if known.shape != (len(vectors),):
        raise ValueError(
            f"expected a duration for each of {len(vectors)} clips, got an array {known.shape}"
        )
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    both = np.concatenate([unit, weight * duration_code(known)], axis=1)
    return (both / np.sqrt(1 + weight**2)).astype(np.float32)
