"""Something-Something V2, zero-shot: validation clips as queries and gallery, the template as label;
and its chiral subset, in which the opposite template is the only distractor.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from latent_actions.retrieval.benchmark import Benchmark
from latent_actions.retrieval.benchmarks.zero_shot import ZeroShotBenchmark, ZeroShotProtocol
from latent_actions.video.records import ClipRecord
from latent_actions.video.sources import Ssv2Source
from latent_actions.video.verbs import OPPOSITES, direction_of


@Benchmark.register_subclass("ssv2")
@dataclass(frozen=True, kw_only=True)
class Ssv2Benchmark(ZeroShotBenchmark):
    """Zero-shot retrieval on Something-Something V2."""

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
    end there.
    """
    sides: dict[str, dict[str, str]] = {}
    for name in sorted(set(names)):
        found = direction_of(name)
        if found is None or (found[0] == "push/pull" and " onto " in name):
            continue
        pair = next(p for p in OPPOSITES if p.name == found[0])
        rest = re.sub(getattr(pair, found[1]), "", name.lower())
        key = f"{pair.name}, {' '.join(rest.split())}"
        sides.setdefault(key, {})[found[1]] = name
    return {name: key for key, pair in sides.items() if len(pair) == 2 for name in pair.values()}
