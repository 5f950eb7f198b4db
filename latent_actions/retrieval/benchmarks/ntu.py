"""NTU RGB+D, zero-shot: the test split as queries and gallery, across views, subjects and setups,
and the one-shot protocol of NTU-120 (arxiv.org/abs/1905.04757): 20 novel classes, one example each.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from latent_actions.retrieval.benchmark import Benchmark
from latent_actions.retrieval.benchmarks.zero_shot import ZeroShotBenchmark, ZeroShotProtocol
from latent_actions.video.records import ClipRecord
from latent_actions.video.sources import NtuSource

FRONT = 1  # camera C001; C002 and C003 look from 45 degrees on either side


@Benchmark.register_subclass("ntu")
@dataclass(frozen=True, kw_only=True)
class NtuBenchmark(ZeroShotBenchmark):
    """Zero-shot retrieval on NTU RGB+D 60 or 120."""

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

    The published examples are of performers of the training part, so they are not in a test split.
    """
    examples = np.zeros(len(labels), bool)
    taken: set[str] = set()
    for row in sorted(np.flatnonzero(novel).tolist(), key=lambda row: clips[row]):
        if labels[row] not in taken:
            taken.add(labels[row])
            examples[row] = True
    return examples
