"""Do equal actions get equal codes, in other places and from other cameras? And do codes tell the
place?

The agreement of two labels is the fraction of positions with equal codes. It is normalized: 0 is
what labels of other actions agree anyway, 1 is full agreement. N pairs, K positions, C codes.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from invact_vla.stats.bootstrap import as_ids, resample
from latent_actions.report.probes import DRAWS, MIN_GROUPS, Estimate, one_hot, ridge
from latent_actions.report.stores import Labeled

MOST_PROBED = 2000  # pairs that a probe of places is fitted to
Equal = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # codes -> observed and chance, (N,)
OVERLAP = 0.5  # of the time of two pairs, for them to be of one moment
STILL = 0.5  # of the root mean square of a dimension: below it in all of them a pair stands still


@dataclass(frozen=True)
class Agreement:
    """normalized: see above; observed, chance: fractions of equal codes; shuffled: the normalized
    agreement of the same codes, dealt out anew."""

    normalized: Estimate
    observed: float
    chance: float
    shuffled: float


@dataclass(frozen=True)
class Leakage:
    """What a ridge probe on codes tells of a label that they should not hold, on videos that it was not
    fitted to. told: R2 of the labels (as one-hot), 0 is nothing, 1 is all; shuffled: the same of codes
    dealt out anew; accuracy: fraction named right; chance: the most frequent label's fraction; labels:
    how many."""

    told: Estimate
    shuffled: float
    accuracy: float
    chance: float
    labels: int


def cross_scene(labeled: Labeled, seed: int = 0) -> Agreement | str:
    """Agreement of pairs of the same verb in other places, against pairs of other verbs in other
    places; or why it cannot be said. Where places are not known every video is one."""
    known = np.array([bool(row.verb) for row in labeled.rows], bool)
    if not known.any():
        return "no pair has a verb or a text"
    chosen = labeled.select(np.flatnonzero(known))
    return _across_scenes(chosen, [row.verb for row in chosen.rows], seed, "verb")


def cross_scene_motion(
    labeled: Labeled, rows: np.ndarray, motion: np.ndarray, seed: int = 0
) -> Agreement | str:
    """The same of pairs that move in the same direction (`directions`), where no annotator is needed.
    rows: int64 (n,), pairs with a true motion; motion: float64 (n, A), in a frame that they share."""
    return _across_scenes(labeled.select(rows), directions(motion).tolist(), seed, "motion")


def directions(motion: np.ndarray) -> np.ndarray:
    """Which way each of n motions (n, A) goes: 0 stands still, 1 + 2 a backwards along dimension a, 2 +
    2 a forwards, int64 (n,): the dimension of the largest number, in units of that dimension's root
    mean square over all; still where that is below STILL."""
    size = np.sqrt((motion**2).mean(axis=0))
    units = np.divide(motion, size, out=np.zeros_like(motion), where=size > 0)
    axis = np.abs(units).argmax(axis=1)
    largest = np.take_along_axis(units, axis[:, None], axis=1)[:, 0]
    return np.where(np.abs(largest) < STILL, 0, 1 + 2 * axis + (largest > 0))


def _across_scenes(
    chosen: Labeled, kinds: Sequence[Hashable], seed: int, what: str
) -> Agreement | str:
    """Agreement of pairs of one kind in other places, against pairs of other kinds there."""
    verbs = as_ids(kinds)
    scenes = as_ids([row.scene or row.take for row in chosen.rows])
    if len(set(verbs.tolist())) < 2 or len(set(scenes.tolist())) < 2:
        return f"all pairs have one {what}, or lie in one place"
    both = as_ids(list(zip(verbs.tolist(), scenes.tolist(), strict=True)))
    everything = np.zeros(len(verbs), np.int64)

    def equal(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        of = _Counts(codes, chosen.codebook_size)
        verb, scene, same, total = (of.within(ids) for ids in (verbs, scenes, both, everything))
        return _mean(verb, same), _mean(total, verb, scene, plus=same)

    return _agreement(chosen, equal, seed, f"a {what} in two places, and two {what}s")


def cross_view(labeled: Labeled, seed: int = 0) -> Agreement | str:
    """Agreement of pairs of one moment seen by two cameras, against pairs of other moments of the same
    take seen by another camera; or why it cannot be said. Pairs are of one moment where at least
    half of their common time is shared. Where a take is one moment, as a robot's demonstration, its
    other times are the other moments."""
    rows = labeled.rows
    cameras = as_ids([row.camera for row in rows])
    takes, moments = as_ids([row.take for row in rows]), as_ids([row.moment for row in rows])
    taken = as_ids(list(zip(takes.tolist(), cameras.tolist(), strict=True)))
    seen = as_ids(list(zip(moments.tolist(), cameras.tolist(), strict=True)))
    if len(set(seen.tolist())) == len(set(moments.tolist())):
        return "no moment was seen by two cameras"
    partners = _partners(labeled, moments, cameras)
    moments = _within_takes(labeled, moments, takes)
    seen = as_ids(list(zip(moments.tolist(), cameras.tolist(), strict=True)))

    def equal(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        of = _Counts(codes, labeled.codebook_size)
        take, own, moment, both = (of.within(ids) for ids in (takes, taken, moments, seen))
        observed = np.array(
            [(codes[p] == codes[i]).mean() if len(p) else np.nan for i, p in enumerate(partners)]
        )
        return observed, _mean(take, own, moment, plus=both)

    return _agreement(
        labeled, equal, seed, "two views of one moment, and other moments of its take"
    )


def leakage(labeled: Labeled, what: str, seed: int = 0) -> Leakage | str:
    """What codes tell of the `scene` or the `camera` of a pair, or why it cannot be said."""
    names = [getattr(row, what) for row in labeled.rows]
    groups = labeled.groups
    takes = defaultdict(set)
    for name, group in zip(names, groups, strict=True):
        takes[name].add(group)
    repeated = {name for name, found in takes.items() if name and len(found) > 1}
    rows = np.array([i for i, name in enumerate(names) if name in repeated], np.int64)
    if len(repeated) < 2:
        return f"fewer than two {what}s are known with more than one video each"
    if len(rows) > MOST_PROBED:
        rows = np.sort(np.random.default_rng(seed).permutation(rows)[:MOST_PROBED])
    labels, clusters = [names[i] for i in rows], [groups[i] for i in rows]
    if len(set(clusters)) < MIN_GROUPS:
        return f"a probe needs {MIN_GROUPS} videos, got {len(set(clusters))}"
    codes, ids = labeled.codes[rows], as_ids(labels)
    mixed = np.random.default_rng([seed, 3]).permutation(codes)
    own, blind = (
        ridge(one_hot(c, labeled.codebook_size), np.eye(len(repeated))[ids], clusters, seed=seed)
        for c in (codes, mixed)
    )
    return Leakage(
        told=own.r2_of_all(),
        shuffled=blind.r2_of_all().value,
        accuracy=float((own.predicted.argmax(axis=1) == ids).mean()),
        chance=float(np.bincount(ids).max() / len(ids)),
        labels=len(repeated),
    )


class _Counts:
    """How many rows of its group each row agrees with, position by position."""

    def __init__(self, codes: np.ndarray, codebook_size: int) -> None:
        self.codes, self.size = codes, codebook_size

    def within(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(mean agreement times size, size) of the group of each row, itself included: float64 (N,)."""
        positions = self.codes.shape[1]
        cells = positions * self.size
        flat = ids[:, None] * cells + self.codes + self.size * np.arange(positions)
        table = np.bincount(flat.ravel(), minlength=int(ids.max() + 1) * cells)
        return table[flat].mean(axis=1), np.bincount(ids)[ids].astype(float)


def _mean(
    whole: tuple[np.ndarray, np.ndarray], *less: tuple[np.ndarray, np.ndarray],
    plus: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:  # fmt: skip
    """Mean agreement with the rows of `whole` without those of `less` (plus those of two of them); NaN
    where none is left."""
    total, size = whole
    for part in less:
        total, size = total - part[0], size - part[1]
    if plus is not None:
        total, size = total + plus[0], size + plus[1]
    return np.divide(total, size, out=np.full(len(size), np.nan), where=size > 0)


def _agreement(labeled: Labeled, equal: Equal, seed: int, needed: str) -> Agreement | str:
    """needed: what no pair has, if no pair can be asked."""
    observed, chance = equal(labeled.codes)
    kept = ~(np.isnan(observed) | np.isnan(chance))
    if not kept.any():
        return f"no pair has {needed}"
    groups: list[Hashable] = [g for g, keep in zip(labeled.groups, kept, strict=True) if keep]
    above, below = (observed - chance)[kept], (1 - chance)[kept]
    if below.sum() < 1e-9:
        return "all labels are equal"
    draws = resample(above, below, groups, draws=DRAWS)
    value = Estimate.of(float(above.sum() / below.sum()), draws, int(kept.sum()), groups)
    mixed = np.random.default_rng([seed, 2]).permutation(labeled.codes)
    other, base = (part[kept] for part in equal(mixed))
    shuffled = float((other - base).sum() / max((1 - base).sum(), 1e-9))
    return Agreement(value, float(observed[kept].mean()), float(chance[kept].mean()), shuffled)


def _within_takes(labeled: Labeled, moments: np.ndarray, takes: np.ndarray) -> np.ndarray:
    """The moments, (N,), cut by the times of the pairs where a take holds one moment alone."""
    held: dict[int, set[int]] = defaultdict(set)
    for take, moment in zip(takes.tolist(), moments.tolist(), strict=True):
        held[take].add(moment)
    alone = np.array([len(held[take]) == 1 for take in takes.tolist()], bool)
    times = np.where(alone, labeled.store.frame, -1), np.where(alone, labeled.store.frame_end, -1)
    columns = (moments.tolist(), *(column.tolist() for column in times))
    return as_ids(list(zip(*columns, strict=True)))


def _partners(labeled: Labeled, moments: np.ndarray, cameras: np.ndarray) -> list[np.ndarray]:
    """Rows of the same moment from other cameras whose time overlaps enough, for each row."""
    first, last = labeled.store.frame, labeled.store.frame_end
    members: dict[int, list[int]] = defaultdict(list)
    for row, moment in enumerate(moments.tolist()):
        members[moment].append(row)
    found: list[np.ndarray] = []
    for row, moment in enumerate(moments.tolist()):
        others = np.array(members[moment], np.int64)
        common = np.minimum(last[others], last[row]) - np.maximum(first[others], first[row])
        whole = np.maximum(last[others], last[row]) - np.minimum(first[others], first[row])
        near = (cameras[others] != cameras[row]) & (common >= OVERLAP * whole)
        found.append(others[near])
    return found
