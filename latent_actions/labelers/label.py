"""`invact latent label`: give codes to the pairs of a source, into one label store per split.

    <out>/labels_train.parquet, labels_val.parquet    see invact_vla/data/label_store.py
    <out>/vectors_train.parquet, vectors_val.parquet  if asked for, see invact_vla/data/label_store.py
    <out>/quantizer/                                  if the labeler fitted one (on train pairs)
    <out>/shards/                                     codes of finished shards, removed at the end
    <out>/summary.json                                code usage of each split

Shards are written whole, and a labeler's codes depend on the pair alone: a killed run continues
after its last shard and ends with the same bytes.
"""

import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from tqdm import tqdm

from invact_vla.core.errors import UserError
from invact_vla.core.files import atomic_file, read_json
from invact_vla.core.run_folder import open_run
from invact_vla.core.schema import LatentLabels
from invact_vla.data.label_store import (
    LabelIdentity,
    LabelStore,
    relative_path,
    write_labels,
    write_vectors,
)
from invact_vla.data.video.frames import video_key
from invact_vla.training.device import resolve_device, stage_device
from invact_vla.training.ray_map import ray_map
from latent_actions.labelers import LapaConfig
from latent_actions.labelers.guard.codebook_usage import CodebookStats, codebook_stats
from latent_actions.labelers.labeler import Labeler, LabelerConfig, TrainingPairs, VectorLabeler
from latent_actions.labelers.pairs import (
    PairConfig,
    dataset_hash,
    decoded,
    decoded_ahead,
    describe,
    evenly_spaced_indices,
    shards,
)
from latent_actions.labelers.trained import seeded
from latent_actions.video.records import PairRecord, Split
from latent_actions.video.skip_report import SkipReport
from latent_actions.video.sources import Ssv2Source
from latent_actions.video.store import FrameStore

logger = logging.getLogger(__name__)


def default_pairs() -> PairConfig:
    """Pairs of Something-Something V2."""
    return PairConfig(source=Ssv2Source())


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """One labeler on the pairs of one source."""

    out: Path = Path("runs/labels")  # folder of the run
    seed: int = 0  # of a network that the labeler trains; the pairs have a seed of their own
    overwrite: bool = False  # replace a run with another config
    labeler: LabelerConfig = field(default_factory=LapaConfig)  # what gives the codes
    pairs: PairConfig = field(default_factory=default_pairs)  # what to label
    splits: tuple[Split, ...] = ("train", "val")  # val measures code usage on held-out pairs
    fit_pairs: int = 4096  # train pairs, about, on which a missing quantizer is fitted
    frames_folder: Path | None = None  # decoded pairs shared with other runs; none: not kept
    dry_run: bool = False  # only count: pairs of each split, what is left out and why, no-ops
    vectors: bool = False  # keep what the codes were cut from, too: vectors_<split>.parquet
    workers: int = 1  # decoding processes, or the actors of a Ray cluster
    # label on a Ray cluster, whole shards by each actor: local, auto, HOST:6379 or ray://HOST:10001; its
    # nodes need the videos, the labeler and this run's folder under the same paths
    ray: str | None = None
    ray_gpus: float = 0.0  # GPUs of each actor, shares of one allowed
    threads: int = 1  # torch threads
    device: str = "auto"  # where the labeler's network runs: auto | cpu | cuda | cuda:N | mps

    def __post_init__(self) -> None:
        if not self.splits or len(set(self.splits)) != len(self.splits):
            raise ValueError(f"splits must be one or more different splits, got {self.splits}")
        if self.fit_pairs < 1 or self.workers < 1 or self.threads < 1:
            raise ValueError("fit_pairs, workers and threads must be at least 1")


def main(config: LabelConfig) -> Path:
    """Label every split, print and save code usage; returns the run folder. With `dry_run`, print what
    would be labeled and write nothing."""
    if config.dry_run:
        for split in config.splits:
            print("\n".join(describe(config.pairs, split)))
        return config.out
    parents = {**config.pairs.parents(), **config.labeler.parents()}
    run = open_run(config.out, config, parents, config.overwrite, config.seed)
    if run.finished:
        logger.info("%s: already finished", run.folder)
        return run.folder
    asked = config.pairs
    spec = config.labeler.frame_spec().agree(config.labeler.name, asked.size, asked.fit)
    pairs = replace(asked, size=spec.size, fit=spec.fit)
    config = replace(config, pairs=pairs, labeler=seeded(config.labeler, config.seed))
    torch.set_num_threads(config.threads)
    device = stage_device(run, config.device)
    labeler = config.labeler.build(run.folder, lambda: _training_frames(config, run.folder), device)
    if config.vectors and not isinstance(labeler, VectorLabeler):
        raise UserError(f"labeler {labeler.name} has no continuous vectors: leave --vectors out")
    if labeler.n_frames <= 2 and not (config.frames_folder or run.folder / "frames").exists():
        config = replace(config, pairs=replace(config.pairs, frames=2))  # it sees the ends alone
    summary: dict[str, object] = {"labeler": labeler.name, "labeler_hash": labeler.hash}
    for report in sorted(run.folder.glob("trained_*.json")):
        summary[report.stem] = read_json(report)
    for split in config.splits:
        store = _label_split(config, labeler, split, run.folder)
        health = codebook_stats(store.labels.codes, labeler.codebook_size)
        summary[split] = {**health.to_json(), "problems": health.problems()}
        _print_health(labeler, split, health)
    shutil.rmtree(run.folder / "shards", ignore_errors=True)
    if config.frames_folder is None:
        shutil.rmtree(run.folder / "frames", ignore_errors=True)
    run.finish(summary)
    return run.folder


def store_path(folder: Path, split: Split) -> Path:
    """Where a labeling run keeps the labels of a split."""
    return Path(folder) / f"labels_{split}.parquet"


@dataclass(frozen=True)
class Shard:
    """The labels of one shard, as they wait for the others. rows: int64 (n,) the pairs of the shard that
    could be decoded. keys: of their videos. codes: int64 (n, K). vectors: float32 (n, D), D = 0 unless
    asked for."""

    rows: np.ndarray
    keys: np.ndarray
    codes: np.ndarray
    vectors: np.ndarray


def _label_split(config: LabelConfig, labeler: Labeler, split: Split, folder: Path) -> LabelStore:
    """Label shard by shard, then write the store."""
    records = config.pairs.records(split)
    identity = LabelIdentity(
        labeler=labeler.name,
        labeler_hash=labeler.hash,
        dataset=f"{config.pairs.dataset}/{split}",
        dataset_hash=dataset_hash(records),
        codebook_size=labeler.codebook_size,
        code_length=labeler.code_length,
    )
    parts = shards(records, config.pairs.shard)
    paths = [folder / "shards" / f"{split}-{number:05d}.npz" for number in range(len(parts))]
    name = f"{identity} vectors {config.vectors}"
    found = [
        _read_shard(path, name, len(part), labeler) for path, part in zip(paths, parts, strict=True)
    ]
    lost = SkipReport(len(records))
    for part, shard in zip(parts, found, strict=True):
        _count_lost(part, shard, lost)
    todo = [number for number, shard in enumerate(found) if shard is None]
    jobs = [(number, parts[number], _frames(config, folder, split, number)) for number in todo]
    bar = tqdm(total=len(records), desc=f"label {split}", unit="pair", mininterval=5)
    bar.update(len(records) - sum(len(part) for _, part, _ in jobs))
    for number, shard in _labeled(config, labeler, folder, jobs):
        found[number] = shard
        with atomic_file(paths[number]) as temporary:
            np.savez(temporary, identity=name, **vars(shard))
        bar.update(len(parts[number]))
        _count_lost(parts[number], shard, lost)
        lost.check(f"{split} pairs", config.pairs.source.max_skipped)
    bar.close()
    done = [shard for shard in found if shard is not None]
    rows = [part[row] for part, shard in zip(parts, done, strict=True) for row in shard.rows]
    root = config.pairs.source.root
    store = LabelStore(
        identity=identity,
        video_id=tuple(r.video_id for r in rows),
        path=tuple(relative_path(r.video, root) for r in rows),
        video_key=tuple(str(key) for shard in done for key in shard.keys),
        frame=np.array([r.frame for r in rows], np.int64),
        frame_end=np.array([r.frame_end for r in rows], np.int64),
        text=tuple(r.text for r in rows),
        labels=LatentLabels(np.concatenate([s.codes for s in done]), labeler.codebook_size),
    )
    if config.vectors:
        vectors = np.concatenate([shard.vectors for shard in done])
        write_vectors(folder / f"vectors_{split}.parquet", store, vectors)
    write_labels(store_path(folder, split), store)
    return store


def _count_lost(pairs: list[PairRecord], shard: Shard | None, lost: SkipReport) -> None:
    """Count the pairs of a shard, if it is labeled, that could not be decoded."""
    rows = set(range(len(pairs))) - set(shard.rows.tolist()) if shard else set()
    for video, count in Counter(pairs[row].video for row in sorted(rows)).items():
        lost.add("pairs that cannot be decoded", str(video), count, damage=True)


def _read_shard(path: Path, identity: str, pairs: int, labeler: Labeler) -> Shard | None:
    """A finished shard of so many pairs; None if there is none, it is torn or empty, or of other labels
    or pairs."""
    try:
        with np.load(path, allow_pickle=False) as saved:
            if str(saved["identity"]) != identity:
                return None
            shard = Shard(*(saved[field.name] for field in fields(Shard)))
        codes = LatentLabels(shard.codes, labeler.codebook_size).codes
        count = {len(shard.rows), len(shard.keys), len(shard.vectors), len(codes)}
        whole = len(count) == 1 and min(count) and codes.shape[1] == labeler.code_length
        return shard if whole and set(shard.rows.tolist()) <= set(range(pairs)) else None
    except (OSError, ValueError, TypeError, LookupError, EOFError, BadZipFile):
        return None


ShardJob = tuple[int, list[PairRecord], Path]  # number, pairs, where its frames are decoded to


def _labeled(
    config: LabelConfig, labeler: Labeler, folder: Path, jobs: list[ShardJob]
) -> Iterator[tuple[int, Shard]]:
    """(number, labels) of shards, in any order: labeled here, or by the actors of a Ray cluster."""
    if config.ray is not None:
        make = partial(_shard_labeler, config, folder)
        yield from ray_map(make, jobs, config.workers, config.ray, config.ray_gpus)
        return
    keep = config.frames_folder is not None
    decoding = [(part, place) for _, part, place in jobs]
    stores = decoded_ahead(decoding, config.pairs, config.workers, keep)
    for (number, part, _), store in zip(jobs, stores, strict=True):
        yield number, _label_shard(labeler, part, store, config.vectors)


def _shard_labeler(config: LabelConfig, folder: Path) -> Callable[[ShardJob], tuple[int, Shard]]:
    """What an actor does. What the labeler had to fit lies in the run's folder."""
    torch.set_num_threads(config.threads)
    training = partial(_training_frames, config, folder)
    labeler = config.labeler.build(folder, training, resolve_device(config.device))
    keep = config.frames_folder is not None

    def label(job: ShardJob) -> tuple[int, Shard]:
        number, part, place = job
        with decoded(part, config.pairs, place, 1, keep) as store:
            return number, _label_shard(labeler, part, store, config.vectors)

    return label


def _label_shard(
    labeler: Labeler, records: list[PairRecord], store: FrameStore, with_vectors: bool
) -> Shard:
    """Label the frames of one shard; pairs of damaged videos are left out."""
    kept = set(store.records)
    rows = [row for row, record in enumerate(records) if record in kept]
    if with_vectors:
        assert isinstance(labeler, VectorLabeler)
        codes, vectors = labeler.label(store.frames, store.records)
    else:
        codes = labeler.codes(store.frames, store.records)
        vectors = np.zeros((len(codes), 0), np.float32)
    keys = [video_key(records[row].video) for row in rows]
    return Shard(np.array(rows, np.int64), np.array(keys, np.str_), codes, vectors)


def _training_frames(config: LabelConfig, folder: Path) -> Iterator[TrainingPairs]:
    """About `fit_pairs` training pairs: whole shards, evenly spaced over the split."""
    parts = shards(config.pairs.records("train"), config.pairs.shard)
    wanted = -(-config.fit_pairs // config.pairs.shard)
    chosen = evenly_spaced_indices(len(parts), wanted)
    for number in tqdm(chosen, "fit quantizer", unit="shard", mininterval=5):
        place = _frames(config, folder, "train", number)
        # kept in any case: labeling this shard comes next and removes it
        with decoded(parts[number], config.pairs, place, config.workers, keep=True) as frames:
            yield TrainingPairs(frames.frames, frames.records)


def _frames(config: LabelConfig, folder: Path, split: Split, number: int) -> Path:
    return (config.frames_folder or folder / "frames") / f"{split}-{number:05d}"


def _print_health(labeler: Labeler, split: Split, health: CodebookStats) -> None:
    for line in health.lines():
        print(f"{labeler.name} {split}: {line}")
    for problem in health.problems():
        logger.warning("%s %s: %s", labeler.name, split, problem)
    if not health.all_used and health.pairs >= 50 * health.codebook_size:
        logger.warning(
            "%s %s: some codes are never used; check the labeler before pretraining on its labels",
            labeler.name, split,
        )  # fmt: skip
