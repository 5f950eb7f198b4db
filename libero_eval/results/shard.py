"""One run on many machines: shard i/n is the i-th of n equal stretches of its episodes."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class Shard:
    """index: 0..of-1."""

    index: int
    of: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """From "i/n"; ValueError for anything else."""
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if match is None or not int(match[1]) < int(match[2]):
            raise ValueError(f"shard: expected i/n with 0 <= i < n such as 0/4, got {text!r}")
        return cls(int(match[1]), int(match[2]))

    def part(self, items: Sequence[Item]) -> list[Item]:
        """This shard's items: neighbors stay together, so that it loads few tasks."""
        ends = [len(items) * i // self.of for i in (self.index, self.index + 1)]
        return list(items[ends[0] : ends[1]])


def missing_shards(shards: Iterable[Shard]) -> list[str]:
    """The shards "i/n" without which these are not a whole run."""
    present = set(shards)
    wanted = {Shard(index, shard.of) for shard in present for index in range(shard.of)}
    return [f"{s.index}/{s.of}" for s in sorted(wanted - present, key=lambda s: (s.of, s.index))]
