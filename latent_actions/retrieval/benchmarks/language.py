"""Language: clips to texts and texts to clips, verbs by name, and five-way choice.

`video to text`, `text to video`   whole-gallery retrieval; every text of the same verb is right
`exact text`                       the clip's own description among the distinct ones
`verb by name`                     prompts of all verbs of the split; top 1, top 5, mean over verbs
`five-way choice`                  own description against four of other verbs of the same take
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from invact_vla.core.errors import UserError
from latent_actions.encoder.inputs.language import verb_sentence, without_subject
from latent_actions.retrieval.benchmark import Benchmark, Context
from latent_actions.retrieval.encoders import EvaluatedEncoder
from latent_actions.retrieval.metric import normalize
from latent_actions.retrieval.ranking import RECALLS, Pool, pool_levels, ranked
from latent_actions.retrieval.results import Row, Scorer

DISTRACTORS = 4


@Benchmark.register_subclass("language")
@dataclass(frozen=True, kw_only=True)
class LanguageBenchmark(Benchmark):
    """Retrieval between clips and descriptions, verbs by name, five-way choice."""

    seed: int = 0  # which distractors are drawn

    def rows(self, context: Context, encoder: EvaluatedEncoder) -> Iterator[Row]:
        if encoder.texts is None:
            raise UserError(
                "the encoder has no text side: give the run folder of a training, which holds "
                "language/ beside encoder/"
            )
        moments, score = context.moments, self.scorer(context, encoder)
        texts = [without_subject(text) for text in moments.text]
        distinct = list(dict.fromkeys(texts))
        verb_of = dict(zip(texts, moments.verb, strict=True))
        of_text = encoder.texts(distinct)
        first_take = [moments.take[texts.index(text)] for text in distinct]
        for view, clips in zip(("ego", "exo"), context.vectors(encoder), strict=True):
            there = Pool(moments.verb, [verb_of[text] for text in distinct])
            back, exact = Pool(there.gallery_labels, moments.verb), Pool(texts, distinct)
            takes = moments.take
            yield from _ranking(score, "video to text", view, (clips, of_text), there, takes)
            yield from _ranking(score, "text to video", view, (of_text, clips), back, first_take)
            yield from _ranking(
                score, "exact text", view, (clips, of_text), exact, takes, precision=False
            )
            yield from _verbs(score, view, clips, encoder.texts, moments.verb, moments.take)
            yield from self._choice(score, view, clips, of_text, distinct, texts, context)

    def _choice(
        self, score: Scorer, view: str, clips: np.ndarray, of_text: np.ndarray,
        distinct: list[str], texts: list[str], context: Context,
    ) -> Iterator[Row]:  # fmt: skip
        moments = context.moments
        options = choices(texts, moments.verb, moments.take, self.seed)
        kept = [i for i, option in enumerate(options) if option]
        if not kept:
            reason = f"no take has {DISTRACTORS} other verbs to choose among"
            yield score.skip(reason, measure="five-way choice", setting=view)
            return
        place = {text: number for number, text in enumerate(distinct)}
        shown = np.array([[place[text] for text in options[i]] for i in kept])
        similarity = np.einsum("nd,nkd->nk", normalize(clips[kept]), normalize(of_text)[shown])
        hits = first_wins(similarity)
        takes = [moments.take[i] for i in kept]
        yield score.row("five-way choice", view, hits, takes, chance=0.2, oracle=1.0)


def choices(
    texts: Sequence[str], verbs: Sequence[str], takes: Sequence[str], seed: int
) -> list[list[str]]:
    """For each clip its text and four texts of its take, each of another verb; [] for a clip whose
    take has fewer than four other verbs."""
    rng = np.random.default_rng(seed)
    by_take: dict[str, dict[str, dict[str, None]]] = {}
    for text, verb, take in zip(texts, verbs, takes, strict=True):
        by_take.setdefault(take, {}).setdefault(verb, {})[text] = None
    options = []
    for text, verb, take in zip(texts, verbs, takes, strict=True):
        others = {v: [t for t in ts if t != text] for v, ts in by_take[take].items() if v != verb}
        names = sorted(v for v, ts in others.items() if ts)
        if len(names) < DISTRACTORS:
            options.append([])
            continue
        drawn = rng.choice(names, DISTRACTORS, replace=False)
        options.append([text, *(str(rng.choice(others[str(name)])) for name in drawn)])
    return options


def first_wins(similarity: np.ndarray) -> np.ndarray:
    """Whether the first column is the largest, a tie of k shared as 1/k: (N, K) -> (N,)."""
    best = similarity.max(axis=1, keepdims=True)
    tied = similarity >= best
    return tied[:, 0] / tied.sum(axis=1)


def _ranking(
    score: Scorer, name: str, view: str, sides: tuple[np.ndarray, np.ndarray], pool: Pool,
    clusters: Sequence[str], precision: bool = True,
) -> Iterator[Row]:  # fmt: skip
    """Recalls of queries in a gallery (the two sides), and, if asked for, the mean average precision."""
    found, levels = ranked(*sides, pool), pool_levels(pool)
    best: Any = {"oracle": levels.answerable, "answerable": levels.answerable}
    for k in RECALLS:
        chance = levels.recall[k]
        yield score.row(f"{name} R@{k}", view, found.recall[k], clusters, chance=chance, **best)
    if precision:
        chance, values = levels.average_precision, found.average_precision
        yield score.row(f"{name} mAP", view, values, clusters, chance=chance, **best)


def _verbs(
    score: Scorer, view: str, clips: np.ndarray, texts, verbs: tuple[str, ...], takes: Sequence[str]
) -> Iterator[Row]:
    """Top-1 and top-5 of the verb among the prompts of all verbs, and the mean over verbs."""
    names = sorted(set(verbs))
    pool = Pool(verbs, names)
    found = ranked(clips, texts([verb_sentence(name) for name in names]), pool)
    levels = pool_levels(pool)
    weights = np.array([1 / verbs.count(verb) for verb in verbs])
    each = {"verb by name top 1": 1, "verb by name top 5": 5}
    for name, k in {**each, "verb by name top 1, mean over verbs": 1}.items():
        yield score.row(
            name, view, found.recall[k], takes, chance=levels.recall[k], oracle=1.0,
            weights=None if name in each else weights,
        )  # fmt: skip
