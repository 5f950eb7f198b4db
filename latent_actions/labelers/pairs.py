"""Decoded pairs, shard by shard: what labeling and LAQ training read, and when it is decoded.

A shard is a fixed run of the source's pairs, so a killed stage repeats at most one of them.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from invact_vla.core.errors import UserError
from invact_vla.core.files import hash_json
from invact_vla.data.video.decode import Fit
from latent_actions.video.records import PairRecord, Split
from latent_actions.video.source import SourceConfig
from latent_actions.video.store import FrameStore


@dataclass(frozen=True, kw_only=True)
class PairConfig:
    """Which pairs of a source, and how they are decoded. Equal values give equal pairs."""

    source: SourceConfig  # where the videos are
    horizon_s: float = 2.4  # seconds from the first to the second frame (LAPA on SSV2: 2.4)
    pairs_per_clip: int = 4  # pairs drawn from a clip, at most
    seed: int = 0  # decides which
    frames: int = 8  # frames decoded per pair, both ends included
    size: int | None = None  # side of the decoded frames, pixels; none: as the labeler was trained
    fit: Fit | None = None  # crop the center | squash the whole frame; none: as it was trained
    shard: int = 512  # pairs per shard

    def __post_init__(self) -> None:
        if self.horizon_s <= 0:
            raise ValueError(f"horizon_s must be positive, got {self.horizon_s}")
        if self.pairs_per_clip < 1 or (self.size or 8) < 8 or self.shard < 1:
            raise ValueError("pairs_per_clip and shard must be >= 1, size at least 8")
        if self.frames < 2:
            raise ValueError(f"a pair has at least 2 frames, got {self.frames}")

    @property
    def dataset(self) -> str:
        """Name of the data set for the label store."""
        return self.source.get_choice_name(type(self.source))

    def records(self, split: Split) -> list[PairRecord]:
        """All pairs of a split; none at all is a UserError."""
        records = self.source.pairs(split, self.horizon_s, self.pairs_per_clip, self.seed)
        if not records:
            raise UserError(
                f"no pairs {self.horizon_s} s apart in the {split} split of {self.source.root}: "
                "lower horizon_s, or give another source"
            )
        return records

    def parents(self) -> dict[str, Path]:
        """The run folder that made the videos, if one did."""
        return self.source.parents()


def shards(records: Sequence[PairRecord], size: int) -> list[list[PairRecord]]:
    """Cut records into runs of `size`; the last may be shorter."""
    return [list(records[i : i + size]) for i in range(0, len(records), size)]


def dataset_hash(records: Sequence[PairRecord]) -> str:
    """16 digits that name the pairs, whatever folder they lie in."""
    return hash_json([[r.video_id, r.frame, r.frame_end, r.text] for r in records])


@contextmanager
def decoded(
    records: Sequence[PairRecord], config: PairConfig, folder: Path, workers: int, keep: bool
) -> Iterator[FrameStore]:
    """Frames of one shard, decoded into `folder` if need be; kept, or removed after use."""
    assert config.size is not None and config.fit is not None
    yield FrameStore.build(
        records, folder, config.frames, config.size, workers, config.fit, config.source.max_skipped
    )
    if not keep:
        shutil.rmtree(folder)


def spread(count: int, wanted: int) -> list[int]:
    """`wanted` of `count` indices, evenly spaced, in order; all if there are no more."""
    wanted = min(wanted, count)
    return sorted({round(i * (count - 1) / max(wanted - 1, 1)) for i in range(wanted)})


__all__ = ["PairConfig", "Split", "dataset_hash", "decoded", "shards", "spread"]
