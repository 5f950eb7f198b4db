"""Zero-shot retrieval on other data sets: frozen encoder, P@10, mAP and R@1. The members name a
source and its protocols.
"""

import abc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from invact_vla.core.errors import UserError
from latent_actions.retrieval.benchmark import Benchmark, Context
from latent_actions.retrieval.encoders import EvaluatedEncoder, embed_all
from latent_actions.retrieval.ranking import Pool, pool_levels, ranked
from latent_actions.retrieval.results import Row, Scorer
from latent_actions.video.records import ClipRecord
from latent_actions.video.source import SourceConfig


@dataclass(frozen=True)
class ZeroShotProtocol:
    """Which clips ask, which may be found, and what is left out.

    queries, gallery: bool (N,); groups: (N,), a clip is never found by one of its own group;
    labels: (N,).
    """

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
    of_label: dict[str, list[int]] = {}
    for row, record in enumerate(records):
        of_label.setdefault(record.verb, []).append(row)
    kept: list[int] = []
    for rows in of_label.values():
        count = min(limit, len(rows)) if limit else len(rows)
        kept += [rows[i] for i in np.linspace(0, len(rows) - 1, count).round().astype(int)]
    return [records[row] for row in sorted(kept)]


def protocol_rows(
    score: Scorer, vectors: np.ndarray, protocol: ZeroShotProtocol, takes: Sequence[str]
) -> Iterator[Row]:
    """P@10, mAP and R@1 of one protocol; a protocol without queries or gallery is said so."""
    asked, offered = (
        np.flatnonzero(mask).tolist() for mask in (protocol.queries, protocol.gallery)
    )
    if not len(asked) or not len(offered):
        reason = f"{len(asked)} queries and {len(offered)} gallery clips"
        yield score.skip(reason, setting=protocol.name)
        return
    columns = [[column[row] for row in rows] for column in (protocol.labels, protocol.groups)
               for rows in (asked, offered)]  # fmt: skip
    pool = Pool(*columns)
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
        yield score.row(
            name, protocol.name, values, clusters, chance=chance, oracle=oracle, answerable=best
        )
