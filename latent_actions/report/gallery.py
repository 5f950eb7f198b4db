"""Clips of the most frequent codes, as small moving pictures."""

from dataclasses import dataclass

import numpy as np

from latent_actions.report.pixels import decode_rows
from latent_actions.report.stores import Labeled

SIDE, FRAMES = 96, 8  # of a moving picture


@dataclass(frozen=True)
class CodeClips:
    """A code (K,) with its share of the pairs, and clips of it: uint8 (n, T, S, S, 3), their seconds
    and what they show."""

    code: tuple[int, ...]
    count: int
    fraction: float
    clips: np.ndarray
    seconds: np.ndarray
    texts: tuple[str, ...]


def gallery(
    labeled: Labeled, codes: int, clips: int, seed: int = 0
) -> tuple[list[CodeClips], tuple[str, ...]]:
    """Up to `clips` clips, of different videos where there are, of each of the `codes` most frequent
    codes, and what could not be decoded."""
    tuples, number, counts = np.unique(
        labeled.codes, axis=0, return_inverse=True, return_counts=True
    )
    number = number.reshape(-1)
    top = np.argsort(-counts, kind="stable")[:codes]
    chosen = {
        int(code): _drawn(labeled, np.flatnonzero(number == code), clips, seed) for code in top
    }
    wanted = np.concatenate(list(chosen.values()))
    decoded = decode_rows(labeled, wanted, FRAMES, SIDE)
    place = {row: i for i, row in enumerate(decoded.rows.tolist())}
    found = []
    for code, rows in chosen.items():
        kept = [row for row in rows.tolist() if row in place]
        at = [place[row] for row in kept]
        found.append(
            CodeClips(
                code=tuple(int(c) for c in tuples[code]),
                count=int(counts[code]),
                fraction=float(counts[code] / len(labeled.codes)),
                clips=decoded.frames[at],
                seconds=decoded.seconds[at],
                texts=tuple(labeled.rows[row].verb or labeled.store.video_id[row] for row in kept),
            )
        )
    return found, decoded.broken


def _drawn(labeled: Labeled, rows: np.ndarray, count: int, seed: int) -> np.ndarray:
    """`count` of the rows in a random order, first one of each video."""
    order = np.random.default_rng([seed, 7]).permutation(rows)
    _, first = np.unique(np.array(labeled.store.path)[order], return_index=True)
    alone = np.sort(first)
    rest = np.setdiff1d(np.arange(len(order)), alone)
    return order[np.concatenate([alone, rest])[:count]]
