"""PhyWorld on disk: HDF5 files of MP4 bytes with positions and initial values.

    <root>/**/{uniform_motion,parabola,collision}_{30K,300K,3M,eval}.hdf5       see hdf5_file.py

Published at huggingface.co/datasets/magicr/phyworld; `invact data phyworld` makes files of the same
layout.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from invact_vla.core.errors import UserError
from invact_vla.data.hdf5_file import BallShard, read_shards
from invact_vla.data.video.frames import VideoError, list_files
from latent_actions.video.phyworld import SCENARIOS, Scenario, tags_of
from latent_actions.video.records import ClipRecord, Split
from latent_actions.video.skip_report import SkipReport
from latent_actions.video.source import SourceConfig, check_folder

FILE = re.compile(rf"^({'|'.join(SCENARIOS)})_(\w+)\.hdf5$")
LAYOUT = "files named {uniform_motion,parabola,collision}_{30K,300K,3M,eval}.hdf5"


@SourceConfig.register_subclass("phyworld")
@dataclass(frozen=True, kw_only=True)
class PhyWorldSource(SourceConfig):
    """PhyWorld samples as clips. Tags: see motion.tags_of."""

    label: Literal["event", "scenario"] = "event"  # verb of a clip
    scene: Literal["radius_bin", "height_bin", "sample"] = "radius_bin"  # nuisance kept apart
    train: str = "30K"  # which training files: 30K | 300K | 3M; val reads the eval files

    def index(self, split: Split) -> tuple[list[ClipRecord], SkipReport]:
        clips, dropped = [], SkipReport()
        for file, scenario in self._files(split):
            for shard in read_shards(file):
                clips += self._shard(shard, scenario, f"{file.stem}/{shard.name}", split, dropped)
        return clips, dropped

    def _files(self, split: Split) -> list[tuple[Path, Scenario]]:
        check_folder(self.root, LAYOUT)
        wanted = self.train if split == "train" else "eval"
        found = []
        for path in list_files(self.root):
            match = FILE.match(path.name)
            if match and match[2] == wanted:
                found.append((path, SCENARIOS[SCENARIOS.index(match[1])]))  # type: ignore[arg-type]
        if not found:
            raise UserError(f"no *_{wanted}.hdf5 below {self.root}: expected {LAYOUT}")
        return found

    def _shard(
        self, shard: BallShard, scenario: Scenario, name: str, split: Split, dropped: SkipReport
    ) -> Iterator[ClipRecord]:
        """Clips of a shard. Its videos have equal lengths: the first readable one is probed."""
        dropped.seen += len(shard.videos)
        fps = self._fps(shard, dropped)
        if fps is None:
            return
        for index, video in enumerate(shard.videos):
            sample = f"{name}/{index}"
            positions, init = shard.positions[index], shard.init[index]
            if not (np.isfinite(positions).all() and np.isfinite(init).all()):
                dropped.add("positions that are no numbers", sample, damage=True)
                continue
            tags = tags_of(scenario, positions, init)
            yield ClipRecord(
                clip_id=sample,
                scene="" if self.scene == "sample" else str(tags[self.scene]),
                verb=str(tags[self.label]),
                text=str(tags["event"]),
                split=split,
                video=video,
                end_s=len(positions) / fps,
                tags=tags,
            )

    def _fps(self, shard: BallShard, dropped: SkipReport) -> float | None:
        """Frame rate of a shard, None if not one of its first videos can be read."""
        first = list(shard.videos[:5])
        for info in self.probe(first).values():
            if not isinstance(info, VideoError):
                return info.fps
        if first:
            count = len(shard.videos)
            dropped.add("shards without readable videos", str(first[0]), count, damage=True)
        return None
