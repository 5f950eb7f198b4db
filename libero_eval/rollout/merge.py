"""`invact libero merge SHARD...`: one run folder from the shards of a run, for report and compare."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from invact_vla.core.errors import UserError
from invact_vla.core.run_folder import open_run
from libero_eval.results.rows import EPISODES_FILE, EpisodeLog, merge
from libero_eval.rollout.command import summary_of

VIDEOS = "videos"


@dataclass(frozen=True, kw_only=True)
class MergeShardsConfig:
    """Which shards, and where to."""

    POSITIONAL: ClassVar[str] = "shards"  # words without a flag

    shards: tuple[Path, ...] = ()  # run folders of all shards of one rollout
    out: Path  # run folder to make
    overwrite: bool = False  # replace a run of other shards in `out`
    may_differ: tuple[str, ...] = ()  # hashes that may differ, e.g. manifest_hash: other machines


def main(config: MergeShardsConfig) -> Path:
    """Check that the shards are one whole run, and write its rows, videos and manifest."""
    if not config.shards:
        raise UserError("no shards given: invact libero merge runs/shard0 runs/shard1 --out DIR")
    rows = merge(config.shards, config.may_differ)
    parents = {f"shard {index}": folder for index, folder in enumerate(config.shards)}
    run = open_run(config.out, config, parents, config.overwrite)
    if run.finished:
        return run.folder
    (run.folder / EPISODES_FILE).unlink(missing_ok=True)
    with EpisodeLog(run.folder / EPISODES_FILE) as log:
        for row in rows:
            log.append(row)
    for folder in config.shards:
        if (folder / VIDEOS).is_dir():
            shutil.copytree(folder / VIDEOS, run.folder / VIDEOS, dirs_exist_ok=True)
    shutil.copy(config.shards[0] / "manifest.json", run.folder / "manifest.json")
    run.finish(summary_of(rows))
    return run.folder
