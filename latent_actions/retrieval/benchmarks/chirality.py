"""Chirality: temporally opposite actions (open and close, left and right) distinguished.

The two of a pair look alike frame by frame and differ in their order only, so an encoder that
averages frames stays at chance; one is shown beside each encoder as "<name>, frames averaged".
After Chirality in Action (LiFT) and CiA-Retrieval (TARA): gallery of one pair's clips only.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from invact_vla.core.errors import UserError
from latent_actions.retrieval.benchmark import OWN, Benchmark, Context, Moments
from latent_actions.retrieval.encoders import EvaluatedEncoder
from latent_actions.retrieval.ranking import (
    Pool,
    chance_of,
    nearer_rate,
    pool_levels,
    probe_hits,
    ranked,
)
from latent_actions.retrieval.results import Row, Scorer
from latent_actions.video.verbs import direction_of

SMALLEST = 2  # clips of each direction that a pair needs
Pairs = dict[str, dict[int, str]]  # {pair: {row: "forth" | "back"}}


@Benchmark.register_subclass("chirality")
@dataclass(frozen=True, kw_only=True)
class ChiralityBenchmark(Benchmark):
    """Nearest neighbors among the clips of two opposite actions, and a linear probe per pair."""

    scene_key: str = OWN  # grouping that is left out with the query
    frame_averaged: bool = True  # show the order-blind version of each encoder too

    def rows(self, context: Context, encoder: EvaluatedEncoder) -> Iterator[Row]:
        moments = context.moments
        groups = moments.groups(self.scene_key)
        pairs = pairs_among(moments.text, SMALLEST)
        if not pairs:
            raise UserError(
                f"no pair of temporally opposite actions has {SMALLEST} clips of each direction among "
                f"{len(moments.text)} moments"
            )
        versions = {encoder.name: context.vectors(encoder)}
        if self.frame_averaged:
            averaged = encoder.of_frames(moments.ego), encoder.of_frames(moments.exo)
            versions[f"{encoder.name}, frames averaged"] = averaged
        for name, vectors in versions.items():
            score = Scorer(self.name(), name, context.draws)
            for view, side in zip(("g-g", "x-x"), vectors, strict=True):
                yield from _retrieval(score, view, side, moments, groups, pairs)
                yield from _probe(score, view, side, moments, pairs)


def pairs_among(texts: Sequence[str], smallest: int) -> Pairs:
    """The pairs with enough clips of both directions."""
    found: Pairs = {}
    for row, text in enumerate(texts):
        pair = direction_of(text)
        if pair is not None:
            found.setdefault(pair[0], {})[row] = pair[1]
    counts = {name: Counter(rows.values()) for name, rows in found.items()}
    enough = [n for n, c in counts.items() if min(c["forth"], c["back"]) >= smallest]
    return {name: found[name] for name in enough}


def _retrieval(
    score: Scorer, view: str, vectors: np.ndarray, moments: Moments, groups: list[str], pairs: Pairs
) -> Iterator[Row]:
    """Each pair its own gallery; rows over the queries of all pairs."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name in ("R@1", "mAP", "AUC")}
    takes, chance, answerable = [], {name: 0.0 for name in parts}, 0.0
    for rows in pairs.values():
        index, sides = np.array(list(rows)), list(rows.values())
        own = [groups[row] for row in index]
        pool = Pool(sides, sides, own, own)
        found, levels = ranked(vectors[index], vectors[index], pool), pool_levels(pool)
        auc = side_auc(vectors[index], sides, own)
        measured = found.recall[1], found.average_precision, auc
        for values, value in zip(parts.values(), measured, strict=True):
            values.append(value)
        chance["R@1"] += levels.recall[1] * len(index)
        chance["mAP"] += levels.average_precision * len(index)
        answerable += levels.answerable * len(index)
        takes += [moments.take[row] for row in index]
    count = len(takes)
    chance["AUC"] = 0.5 * count
    for name, values in parts.items():
        scores = np.concatenate(values)
        known = ~np.isnan(scores)
        kept = [take for take, ok in zip(takes, known, strict=True) if ok]
        top = 1.0 if name == "AUC" else answerable / count
        if kept:
            yield score.row(
                f"{view} chiral {name}", f"{len(pairs)} pairs", scores[known], kept,
                chance=chance[name] / count, oracle=top, answerable=answerable / count,
            )  # fmt: skip


def side_auc(vectors: np.ndarray, sides: Sequence[str], groups: Sequence[str]) -> np.ndarray:
    """Per query the chance that a clip of its own direction is nearer than one of the opposite, ties
    half, its own group left out: (N,), NaN where a side is missing. 0.5 without information,
    whatever the sides' sizes."""
    side, group = np.array(sides), np.array(groups)
    allowed, same = group != group[:, None], side == side[:, None]
    return nearer_rate(vectors, allowed & same, allowed & ~same)


def _probe(
    score: Scorer, view: str, vectors: np.ndarray, moments: Moments, pairs: Pairs
) -> Iterator[Row]:
    """A linear probe per pair, folds by take; mean over pairs, as CiA reports it."""
    hits, weights, takes, chance = [], [], [], []
    for rows in pairs.values():
        index, sides = np.array(list(rows)), list(rows.values())
        own = [moments.take[row] for row in index]
        if len(set(own)) < 2:
            continue
        hits.append(probe_hits(vectors[index], sides, own))
        weights.append(np.full(len(index), 1 / len(index)))
        chance.append(chance_of(sides))
        takes += own
    if hits:
        yield score.row(
            f"{view} chiral probe, mean over pairs", f"{len(hits)} pairs", np.concatenate(hits),
            takes, chance=float(np.mean(chance)), oracle=1.0, weights=np.concatenate(weights),
        )  # fmt: skip
