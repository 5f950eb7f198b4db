"""PhyWorld, zero-shot: physical events by motion alone; and how much of a hit is mere appearance.

The nuisances, radius and height bins, are asked for as labels too: their P@10 above chance is what
an encoder matches by looks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from latent_actions.retrieval.benchmark import Benchmark
from latent_actions.retrieval.benchmarks.zero_shot import ZeroShotBenchmark, ZeroShotProtocol
from latent_actions.video.records import ClipRecord
from latent_actions.video.sources import PhyWorldSource

LABELS = ("scenario", "event")
NUISANCES = ("radius_bin", "height_bin")


@Benchmark.register_subclass("phyworld")
@dataclass(frozen=True, kw_only=True)
class PhyWorldBenchmark(ZeroShotBenchmark):
    """Zero-shot retrieval on PhyWorld's evaluation files."""

    source: PhyWorldSource = field(default_factory=PhyWorldSource)  # where the HDF5 files are

    def protocols(self, records: Sequence[ClipRecord]) -> Iterator[ZeroShotProtocol]:
        every, clips = np.ones(len(records), bool), [record.clip_id for record in records]
        for name in LABELS:
            labels = [str(record.tags[name]) for record in records]
            yield ZeroShotProtocol(name, labels, every, every, clips)
        for name in NUISANCES:
            bins = [str(record.tags[name]) for record in records]
            yield ZeroShotProtocol(f"nuisance {name}", bins, every, every, clips)
