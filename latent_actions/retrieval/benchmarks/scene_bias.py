"""Scene bias: how much of a vector is the place instead of the action.

`same-scene wrong hits`   share of clips of the query's own scene among the wrong ones of the ten
                          nearest, nothing but the query's moment left out (SB@10)
`P@10 lost`               P@10 over all scenes minus P@10 across scenes, points; the share kept above
                          chance beside it
`action before scene`     how often a clip of the same action in another scene is nearer than one of
                          another action in the same scene: 50 without information
`scene/verb from ...`     linear probes, 5 folds by take; the action token as the head reads it, and as a
                          whole where it was projected for that
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from invact_vla.stats.bootstrap import as_ids
from latent_actions.retrieval.benchmark import ALONE, OWN, Benchmark, Context, Moments
from latent_actions.retrieval.encoders import EvaluatedEncoder
from latent_actions.retrieval.metric import TOP, bounds_of, precision_at, top_indices
from latent_actions.retrieval.ranking import chance_of, nearer_rate, probe_hits
from latent_actions.retrieval.results import Row, Scorer


@Benchmark.register_subclass("scene_bias")
@dataclass(frozen=True, kw_only=True)
class SceneBiasBenchmark(Benchmark):
    """How much of the place is in the embedding, the action token and the registers."""

    scene_key: str = OWN  # grouping by place

    def rows(self, context: Context, encoder: EvaluatedEncoder) -> Iterator[Row]:
        moments = context.moments
        scenes = moments.groups(self.scene_key)
        alone = moments.groups(ALONE)
        score = self.scorer(context, encoder)
        for view, vectors in zip(("g-g", "x-x"), context.vectors(encoder), strict=True):
            hits, chance = same_scene_wrong_hits(vectors, moments.verb, scenes, alone)
            known = ~np.isnan(hits)
            if known.any():
                takes = np.array(moments.take)[known].tolist()
                name = f"{view} same-scene wrong hits"
                yield score.row(name, self.scene_key, hits[known], takes, chance=chance)
            yield from self._gap(score, view, vectors, moments, scenes, alone)
            wins, known = action_before_scene(vectors, moments.verb, scenes, alone)
            if known.any():
                takes = np.array(moments.take)[known].tolist()
                name = f"{view} action before scene"
                yield score.row(name, self.scene_key, wins[known], takes, chance=0.5, oracle=1.0)
        yield from self._probes(context, encoder, score, scenes)

    def _gap(
        self, score: Scorer, view: str, vectors: np.ndarray, moments: Moments, scenes: list[str],
        alone: list[str],
    ) -> Iterator[Row]:  # fmt: skip
        """P@10 lost by leaving the scene out, and the share of the gain over chance that stays."""
        anywhere = precision_at(vectors, vectors, moments.verb, alone)
        across = precision_at(vectors, vectors, moments.verb, scenes)
        chance = [bounds_of(moments.verb, g).chance / 100 for g in (alone, scenes)]
        yield score.row(
            f"{view} P@10 lost", self.scene_key, anywhere - across, moments.take,
            chance=chance[0] - chance[1],
        )  # fmt: skip
        gain = anywhere - chance[0]
        row = score.row(f"{view} gain kept", self.scene_key, gain, moments.take)
        if row.low is None or row.low <= 0:
            reason = "P@10 over all scenes is not above chance: nothing to keep"
            yield score.skip(reason, measure=row.measure, setting=self.scene_key)
            return
        kept = across - chance[1]
        yield score.row(f"{view} gain kept", self.scene_key, kept, moments.take, over=gain)

    def _probes(
        self, context: Context, encoder: EvaluatedEncoder, score: Scorer, scenes: list[str]
    ) -> Iterator[Row]:
        """Scene and verb from the embedding, the action token and the registers."""
        moments = context.moments
        takes = [*moments.take, *moments.take]
        labels = {"scene": [*scenes, *scenes], "verb": [*moments.verb, *moments.verb]}
        parts = {"embedding": np.concatenate(context.vectors(encoder))}
        if encoder.tokens is not None:
            both = [encoder.tokens(clips) for clips in (moments.ego, moments.exo)]
            parts["action token"] = np.concatenate([tokens.action for tokens in both])
            if both[0].token.shape != both[0].action.shape:
                whole = np.concatenate([tokens.token for tokens in both])
                parts["action token before its readout"] = whole
            parts["registers"] = np.concatenate([tokens.registers for tokens in both])
        for part, features in parts.items():
            for what, values in labels.items():
                hits = probe_hits(features, values, takes)
                yield score.row(
                    f"{what} from {part}", f"{self.scene_key}, folds by take", hits, takes,
                    chance=chance_of(values), oracle=1.0,
                )  # fmt: skip


def same_scene_wrong_hits(
    vectors: np.ndarray, verbs: tuple[str, ...], scenes: list[str], moments: list[str]
) -> tuple[np.ndarray, float]:
    """Per query the share of its own scene among the wrong ones of its ten nearest, (M,), NaN where
    all ten are right; and what a random order is expected to score."""
    verb, scene = as_ids(verbs), as_ids(scenes)
    found = top_indices(vectors, vectors, moments, top=TOP)
    wrong = (found >= 0) & (verb[found] != verb[:, None])
    same = wrong & (scene[found] == scene[:, None])
    count = wrong.sum(axis=1)
    share = np.where(count > 0, same.sum(axis=1) / np.maximum(count, 1), np.nan)
    # of the clips with another verb, those of the same scene; the query itself has its own verb
    others = len(verb) - np.bincount(verb)[verb]
    pairs = verb.astype(np.int64) * (scene.max() + 1) + scene
    own = np.bincount(scene)[scene] - np.bincount(pairs)[pairs]
    known = ~np.isnan(share) & (others > 0)
    return share, float(np.mean(own[known] / others[known])) if known.any() else 0.0


def action_before_scene(
    vectors: np.ndarray, verbs: tuple[str, ...], scenes: list[str], moments: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Per query, over all pairs (same verb in another scene, another verb in the same scene), the
    share in which the first is nearer, ties half: (M,), and whether there are such pairs, bool (M,)."""
    verb, scene, moment = as_ids(verbs), as_ids(scenes), as_ids(moments)
    same_verb, same_scene = verb == verb[:, None], scene == scene[:, None]
    far = ~same_verb & same_scene & (moment != moment[:, None])
    wins = nearer_rate(vectors, same_verb & ~same_scene, far)
    known = ~np.isnan(wins)
    return np.where(known, wins, 0.0), known
