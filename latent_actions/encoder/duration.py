"""How long a clip lasts, beside its embedding, where clips are compared.

An encoder sees T frames of a clip whatever its length, so it cannot tell an egg that is cracked in a
second from one that is peeled in a minute. The duration is written as the cosine and sine of its
logarithm at two rates, a vector of unit length. The cosine between two of them depends on their ratio
alone: 1 for equal durations, 0.85 for twice, 0.33 for five, -0.13 for ten, -0.52 for sixty times.
"""

import numpy as np

RATES = (0.5, 1.0)  # radians for each factor e of the duration
WIDTH = 2 * len(RATES)  # numbers of a duration


def duration_code(seconds: np.ndarray) -> np.ndarray:
    """Durations (N,) in seconds, positive -> float32 (N, WIDTH) of unit length."""
    if seconds.ndim != 1 or not (np.isfinite(seconds) & (seconds > 0)).all():
        raise ValueError(f"expected durations (N,) in seconds, positive, got {seconds!r}")
    angles = np.outer(np.log(seconds), RATES)
    return (np.concatenate([np.cos(angles), np.sin(angles)], axis=1) / np.sqrt(len(RATES))).astype(
        np.float32
    )


def with_duration(vectors: np.ndarray, seconds: np.ndarray, weight: float) -> np.ndarray:
    """Vectors (N, D) of clips and the clips' durations (N,) in seconds -> float32 (N, D + WIDTH) of unit
    length: the embedding, and `weight` times the duration's vector beside it. The cosine of two clips is
    (that of their embeddings + weight^2 that of their durations) / (1 + weight^2)."""
    seconds = np.asarray(seconds, np.float64)
    if len(seconds) != len(vectors):
        raise ValueError(
            f"expected a duration for each of {len(vectors)} clips, got {len(seconds)}"
        )
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    both = np.concatenate([unit, weight * duration_code(seconds)], axis=1)
    return (both / np.sqrt(1 + weight**2)).astype(np.float32)
