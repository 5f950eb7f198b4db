"""Zero-shot retrieval on other data sets: frozen encoder, P@10, mAP and R@1. The members name a
source and its protocols: NTU RGB+D, PhyWorld, Something-Something V2.
"""

import abc
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from invact_vla.core.errors import UserError
from latent_actions.retrieval.benchmark import Benchmark, Context
from latent_actions.retrieval.encoders import EvaluatedEncoder, embed_all
from latent_actions.retrieval.ranking import Pool, pool_levels, ranked
from latent_actions.retrieval.results import Row, Scorer
from latent_actions.video.records import ClipRecord
from latent_actions.video.source import SourceConfig
from latent_actions.video.sources import NtuSource, PhyWorldSource, Ssv2Source
from latent_actions.video.verbs import OPPOSITES, direction_of

FRONT = 1  # NTU's camera C001; C002 and C003 look from 45 degrees on either side


@dataclass(frozen=True)
class ZeroShotProtocol:
    """Which clips ask, which may be found, and what is left out.

    queries, gallery: bool (N,); groups: (N,), a clip is never found by one of its own group;
    labels: (N,)."""

    name: str
    labels: Sequence[str]
    queries: np.ndarray
    gallery: np.ndarray
    groups: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class ZeroShotBenchmark(Benchmark):
    """Base of the benchmarks on a data set of its own: source, limit, protocols."""

    source: SourceConfig  # where the clips are
    limit: int = 0  # clips of each class at most, the first ones in the source's order; 0: all

    def __post_init__(self) -> None:
        if self.limit < 0:
            raise ValueError(f"limit must be >= 0, got {self.limit}")

    @abc.abstractmethod
    def protocols(self, records: Sequence[ClipRecord]) -> Iterator[ZeroShotProtocol]:
        """What is asked of the clips, in the order of the table."""

    def records(self, context: Context) -> list[ClipRecord]:
        """The clips, at most `limit` per class."""
        return some_of_each(self.source.clips(context.split), self.limit)

    def rows(self, context: Context, encoder: EvaluatedEncoder) -> Iterator[Row]:
        records = self.records(context)
        if not records:
            raise UserError(f"the source has no clips of split {context.split!r}")
        store = context.store(self.name(), records, self.source.max_skipped)
        vectors = embed_all(encoder, store.frames)
        score = self.scorer(context, encoder)
        takes = [record.take for record in store.records]
        for protocol in self.protocols(store.records):
            yield from protocol_rows(score, vectors, protocol, takes)


def some_of_each(records: Sequence[ClipRecord], limit: int) -> list[ClipRecord]:
    """`limit` records of each label, spread evenly over the label's own (which are sorted by setup or
    take, so that few of them are of many places), in order; all of them if limit is 0."""
    of_label: dict[str, list[int]] = defaultdict(list)
    for row, record in enumerate(records):
        of_label[record.verb].append(row)
    kept: list[int] = []
    for rows in of_label.values():
        count = min(limit, len(rows)) if limit else len(rows)
        kept += [rows[i] for i in np.linspace(0, len(rows) - 1, count).round().astype(int)]
    return [records[row] for row in sorted(kept)]


def protocol_rows(
    score: Scorer, vectors: np.ndarray, protocol: ZeroShotProtocol, takes: Sequence[str]
) -> Iterator[Row]:
    """P@10, mAP and R@1 of one protocol; a protocol without queries or gallery is said so."""
    masks = (protocol.queries, protocol.gallery)
    asked, offered = (np.flatnonzero(mask).tolist() for mask in masks)
    if not asked or not offered:
        reason = f"{len(asked)} queries and {len(offered)} gallery clips"
        yield score.skip(reason, setting=protocol.name)
        return
    pool = Pool.of(protocol.labels, protocol.groups, asked, offered)
    if len(set(pool.gallery_labels)) < 2:
        yield score.skip("all gallery clips have one label", setting=protocol.name)
        return
    found, levels = ranked(vectors[asked], vectors[offered], pool), pool_levels(pool)
    clusters = [takes[row] for row in asked]
    best = levels.answerable
    for name, values, chance, oracle in (
        ("P@10", found.precision, levels.precision, levels.precision_oracle),
        ("mAP", found.average_precision, levels.average_precision, best),
        ("R@1", found.recall[1], levels.recall[1], best),
    ):
        bounds: Any = {"chance": chance, "oracle": oracle, "answerable": best}
        yield score.row(name, protocol.name, values, clusters, **bounds)


@Benchmark.register_subclass("ntu")
@dataclass(frozen=True, kw_only=True)
class NtuBenchmark(ZeroShotBenchmark):
    """Zero-shot retrieval on NTU RGB+D 60 or 120: the test split, across views, subjects and setups, and
    the one-shot protocol of NTU-120 (arxiv.org/abs/1905.04757): 20 novel classes, one example each."""

    source: NtuSource = field(default_factory=NtuSource)  # where the videos are, and which split

    def protocols(self, records: Sequence[ClipRecord]) -> Iterator[ZeroShotProtocol]:
        labels = [record.verb for record in records]
        tags = {
            name: np.array([int(record.tags[name]) for record in records])
            for name in ("camera", "subject", "setup", "one_shot")
        }
        every, moments = np.ones(len(records), bool), [record.moment_id for record in records]
        front = tags["camera"] == FRONT
        clips = [record.clip_id for record in records]
        yield ZeroShotProtocol("all", labels, every, every, clips)
        yield ZeroShotProtocol("side view to front", labels, ~front, front, moments)
        yield ZeroShotProtocol("front view to side", labels, front, ~front, moments)
        for name in ("subject", "setup"):
            groups = [str(value) for value in tags[name]]
            yield ZeroShotProtocol(f"across {name}s", labels, every, every, groups)
        novel = tags["one_shot"] == 1
        examples = first_examples(labels, clips, novel)
        known = int(examples.sum())
        name = "one-shot" if known in (0, 20) else f"one-shot, {known} of its 20 classes"
        yield ZeroShotProtocol(name, labels, novel & ~examples, examples, clips)


def first_examples(labels: Sequence[str], clips: Sequence[str], novel: np.ndarray) -> np.ndarray:
    """The example of each novel class, bool (N,): its first clip by name.

    The published examples are of performers of the training part, so they are not in a test split."""
    examples = np.zeros(len(labels), bool)
    taken: set[str] = set()
    for row in sorted(np.flatnonzero(novel).tolist(), key=lambda row: clips[row]):
        if labels[row] not in taken:
            taken.add(labels[row])
            examples[row] = True
    return examples


@Benchmark.register_subclass("phyworld")
@dataclass(frozen=True, kw_only=True)
class PhyWorldBenchmark(ZeroShotBenchmark):
    """Zero-shot retrieval on PhyWorld's evaluation files: physical events by motion alone. The
    nuisances, radius and height bins, are asked for as labels too: their P@10 above chance is what an
    encoder matches by looks."""

    source: PhyWorldSource = field(default_factory=PhyWorldSource)  # where the HDF5 files are

    def protocols(self, records: Sequence[ClipRecord]) -> Iterator[ZeroShotProtocol]:
        every, clips = np.ones(len(records), bool), [record.clip_id for record in records]
        for tag in ("scenario", "event", "radius_bin", "height_bin"):
            labels = [str(record.tags[tag]) for record in records]
            name = f"nuisance {tag}" if tag.endswith("_bin") else tag
            yield ZeroShotProtocol(name, labels, every, every, clips)


@Benchmark.register_subclass("ssv2")
@dataclass(frozen=True, kw_only=True)
class Ssv2Benchmark(ZeroShotBenchmark):
    """Zero-shot retrieval on Something-Something V2: the template as label; and its chiral subset, in
    which the opposite template is the only distractor."""

    source: Ssv2Source = field(default_factory=Ssv2Source)  # where the videos are

    def protocols(self, records: Sequence[ClipRecord]) -> Iterator[ZeroShotProtocol]:
        labels, clips = ([getattr(r, name) for r in records] for name in ("verb", "clip_id"))
        every = np.ones(len(records), bool)
        yield ZeroShotProtocol("all", labels, every, every, clips)
        pair_of = opposite_classes(labels)
        for pair in sorted(set(pair_of.values())):
            inside = np.array([pair_of.get(label) == pair for label in labels])
            yield ZeroShotProtocol(f"chiral: {pair}", labels, inside, inside, clips)


def opposite_classes(names: Sequence[str]) -> dict[str, str]:
    """{class: pair} of the classes whose temporal opposite is a class too.

    Two are opposite if they differ in the words of a pair of OPPOSITES only ("Pushing something
    from left to right" and "... from right to left"). Pushing and pulling onto something are not: both
    end there."""
    sides: dict[str, dict[str, str]] = defaultdict(dict)
    for name in sorted(set(names)):
        found = direction_of(name)
        if found is None or (found[0] == "push/pull" and " onto " in name):
            continue
        pair = next(p for p in OPPOSITES if p.name == found[0])
        rest = re.sub(getattr(pair, found[1]), "", name.lower())
        key = f"{pair.name}, {' '.join(rest.split())}"
        sides[key][found[1]] = name
    return {name: key for key, pair in sides.items() if len(pair) == 2 for name in pair.values()}
