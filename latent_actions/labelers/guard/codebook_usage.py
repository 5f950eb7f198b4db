"""Are the codes used? Usage, perplexity, joint entropy, and what one position tells of another.

Codes are int (N, K): N pairs, K positions, each in [0, C).
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

MIN_PERPLEXITY = 2.0  # a position below it has collapsed
MAX_COPIED = 0.8  # of a position's entropy that another position tells; above it is a near copy


@dataclass(frozen=True)
class CodebookStats:
    """How N labels use their codes.

    usage: distinct codes at each position; perplexity: exp(entropy) at each position, 1..C;
    joint_entropy_bits: entropy of the K-tuples, at most log2(min(N, C^K)); top_tuple and
    top_tuple_fraction: the most frequent tuple and its share of all pairs; alike: the two positions that
    tell most of each other, copied: the part of the entropy of one that the other tells, 0..1.
    """

    pairs: int
    codebook_size: int
    usage: tuple[int, ...]
    perplexity: tuple[float, ...]
    joint_entropy_bits: float
    distinct_tuples: int
    top_tuple: tuple[int, ...]
    top_tuple_fraction: float
    alike: tuple[int, int]
    copied: float

    @property
    def all_used(self) -> bool:
        """Every code occurs at every position."""
        return all(n == self.codebook_size for n in self.usage)

    def lines(self) -> list[str]:
        """The same in words, for the terminal."""
        used = " ".join(f"{n}/{self.codebook_size}" for n in self.usage)
        perplexity = " ".join(f"{p:.2f}" for p in self.perplexity)
        bits = len(self.usage) * np.log2(self.codebook_size)
        return [
            f"{self.pairs} pairs; codes used at each position: {used}",
            f"perplexity at each position: {perplexity} of {self.codebook_size}",
            f"joint entropy {self.joint_entropy_bits:.2f} of {bits:.0f} bits, "
            f"{self.distinct_tuples} distinct tuples, "
            f"most frequent {self.top_tuple} with {100 * self.top_tuple_fraction:.1f} %",
        ]

    def problems(self) -> list[str]:
        """Why these codes should not be used, a line each; empty for healthy ones. Fewer than 10 pairs
        per code tell nothing."""
        if self.pairs < 10 * self.codebook_size:
            return []
        found = []
        if min(self.perplexity) < MIN_PERPLEXITY:
            found.append(
                f"the codes collapsed: perplexity {min(self.perplexity):.2f} at one position, expected "
                f"at least {MIN_PERPLEXITY:g}: lower loop.learning_rate or train longer"
            )
        if self.copied > MAX_COPIED:
            found.append(near_copies(self.alike, self.copied, self.joint_entropy_bits))
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain values, for summary.json."""
        return {**asdict(self), "all_used": self.all_used}


def codebook_stats(codes: np.ndarray, codebook_size: int) -> CodebookStats:
    """Measure codes int (N, K) with N >= 1; raises ValueError on another shape or range."""
    codes = np.asarray(codes)
    if codes.ndim != 2 or not len(codes) or not np.issubdtype(codes.dtype, np.integer):
        raise ValueError(f"codes: expected integers (N >= 1, K), got {codes.dtype} {codes.shape}")
    if codes.min() < 0 or codes.max() >= codebook_size:
        raise ValueError(
            f"codes: expected [0, {codebook_size}), got [{codes.min()}, {codes.max()}]"
        )
    counts = code_counts(codes, codebook_size)
    tuples, tuple_counts = np.unique(codes, axis=0, return_counts=True)
    top = int(tuple_counts.argmax())
    alike, copied = most_alike(pair_counts(codes, codebook_size), codes.shape[1])
    return CodebookStats(
        pairs=len(codes),
        codebook_size=codebook_size,
        usage=tuple(int(n) for n in (counts > 0).sum(axis=1)),
        perplexity=tuple(float(p) for p in perplexity(counts)),
        joint_entropy_bits=float(entropy_nats(tuple_counts) / np.log(2)),
        distinct_tuples=len(tuples),
        top_tuple=tuple(int(c) for c in tuples[top]),
        top_tuple_fraction=float(tuple_counts[top] / len(codes)),
        alike=alike,
        copied=copied,
    )


def code_counts(codes: np.ndarray, codebook_size: int) -> np.ndarray:
    """How often each code occurs at each position: int (N, K) -> int64 (K, C)."""
    positions = codes.shape[1]
    flat = codes + codebook_size * np.arange(positions)
    counts = np.bincount(flat.ravel(), minlength=positions * codebook_size)
    return counts.reshape(positions, codebook_size)


def pair_counts(codes: np.ndarray, codebook_size: int) -> np.ndarray:
    """How often two codes occur together: int (N, K) -> float64 (K C, K C), whose row k C + c is code c
    of position k."""
    one_hot = np.zeros((codes.shape[1] * codebook_size,) * 2)
    for start in range(0, len(codes), 4096):
        seen = np.eye(codebook_size)[codes[start : start + 4096]].reshape(-1, len(one_hot))
        one_hot += seen.T @ seen
    return one_hot


def most_alike(together: np.ndarray, positions: int) -> tuple[tuple[int, int], float]:
    """The two positions that tell most of each other, and how much: their mutual information over the
    smaller of their entropies, 0..1; 0 where one of them is constant, or alone. together: see
    pair_counts."""
    each = len(together) // positions
    joint = together.reshape(positions, each, positions, each).swapaxes(1, 2)
    single = entropy_nats(joint.sum(axis=3)).diagonal()
    pairs = entropy_nats(joint.reshape(positions, positions, -1))
    told = single[:, None] + single - pairs
    smaller = np.minimum(single[:, None], single)
    share = np.divide(told, smaller, out=np.zeros_like(told), where=smaller > 1e-9)
    share[np.tril_indices(positions)] = 0.0
    first, second = divmod(int(share.argmax()), positions)
    return (first, second), float(np.clip(share[first, second], 0.0, 1.0))


def near_copies(alike: tuple[int, int], copied: float, joint_entropy_bits: float) -> str:
    """The diagnosis of positions that repeat each other, in one line."""
    return (
        f"code positions {alike[0]} and {alike[1]} are near copies: one tells {100 * copied:.0f} % of "
        f"the entropy of the other (joint entropy {joint_entropy_bits:.1f} bits), so what the codes are "
        "cut from varies in too few directions: set model.whiten or a residual quantizer, or lower "
        "loop.learning_rate"
    )


def entropy_nats(counts: np.ndarray) -> np.ndarray:
    """Entropy of counts (..., C) along the last axis; 0 where all counts are 0."""
    total = np.maximum(counts.sum(axis=-1, keepdims=True), 1)
    share = counts / total
    logs = np.log(share, out=np.zeros_like(share, dtype=float), where=share > 0)
    return np.maximum(-(share * logs).sum(axis=-1), 0.0)


def perplexity(counts: np.ndarray) -> np.ndarray:
    """exp(entropy) of counts (..., C): the number of codes in effective use."""
    return np.exp(entropy_nats(counts))
