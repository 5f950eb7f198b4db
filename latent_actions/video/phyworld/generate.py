"""The `phyworld` stage: PhyWorld's three scenarios, drawn from formulas, in its published layout.

    <out>/id_ood_data/{uniform_motion,parabola,collision}_{30K,eval}.hdf5

White ground, ball 1 red, ball 2 blue. Every sample is a function of (seed, split, scenario, index);
velocities and radii are the ground truth, in init_streams. Nothing is simulated and nothing needs
downloading.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from invact_vla.core.run_folder import open_run
from invact_vla.data.video.hdf5_video import write_shards
from invact_vla.data.video.video_io import write_video
from latent_actions.video.phyworld.motion import (
    DIRECTIONS,
    FRAME_S,
    SCENARIOS,
    WORLD,
    Sample,
    Scenario,
    draw_sample,
)
from latent_actions.video.workers import run_parallel

FOLDER = "id_ood_data"
COLORS = ((255.0, 0.0, 0.0), (0.0, 0.0, 255.0))
SPLIT_NAMES = ("30K", "eval")  # of the training and of the evaluation files


@dataclass(frozen=True, kw_only=True)
class PhyWorldConfig:
    """How many samples of each scenario, and their size."""

    out: Path  # run folder
    train: int = 3000  # training samples of each scenario
    val: int = 500  # evaluation samples of each scenario
    shard: int = 1000  # samples a shard
    size: int = 128  # side of the frames, pixels (published: 128)
    directions: tuple[str, ...] = ("right", "left", "up", "down")  # of motion (published: right)
    seed: int = 0  # decides all samples
    workers: int = 2  # processes
    overwrite: bool = False  # replace a run folder of another config

    def __post_init__(self) -> None:
        if self.train < 0 or self.val < 1 or self.shard < 1:
            raise ValueError("train must be >= 0, val and shard >= 1")
        if self.size < 16 or self.size % 2:
            raise ValueError(f"size must be even and >= 16, got {self.size}")
        unknown = set(self.directions) - set(DIRECTIONS)
        if unknown or not {"right", "left"} & set(self.directions):
            raise ValueError(
                f"directions must be among {sorted(DIRECTIONS)} and hold right or left, "
                f"got {self.directions}"
            )


def main(config: PhyWorldConfig) -> Path:
    """Write the files; returns the run folder. Files that exist are kept."""
    run = open_run(config.out, config, overwrite=config.overwrite, seed=config.seed)
    if run.finished:
        return run.folder
    files = {}
    counts = zip(SPLIT_NAMES, (config.train, config.val), strict=True)
    for split, (name, count) in enumerate(counts):
        for scenario in SCENARIOS if count else ():
            file = run.folder / FOLDER / f"{scenario}_{name}.hdf5"
            files[file.name] = count
            if not file.exists():
                starts = range(0, count, config.shard)
                jobs = [(config, scenario, split, start, count) for start in starts]
                made = run_parallel(_make_shard, jobs, config.workers)
                shards = dict(tqdm(made, file.stem, len(jobs), unit="shard", leave=False))
                write_shards(file, [shards[start] for start in starts])
    run.finish({"samples": files})
    return run.folder


def _make_shard(job: tuple) -> tuple[int, tuple[np.ndarray, np.ndarray, list[bytes]]]:
    """(first index, (positions, init, MP4 files)) of a run of samples."""
    config, scenario, split, start, count = job
    indices = range(start, min(start + config.shard, count))
    samples = [sample_at(config, scenario, split, index) for index in indices]
    positions = np.stack([sample.positions for sample in samples])
    if positions.shape[2] == 1:  # one ball is published without its axis
        positions = positions[:, :, 0]
    videos = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "v.mp4"
        for sample in samples:
            write_video(path, draw(sample, config.size), 1 / FRAME_S)
            videos.append(path.read_bytes())
    return start, (positions, np.array([sample.init for sample in samples]), videos)


def sample_at(config: PhyWorldConfig, scenario: Scenario, split: int, index: int) -> Sample:
    """The index-th sample of a scenario; split 0 trains, 1 evaluates."""
    stream = (config.seed, 211, split, SCENARIOS.index(scenario), index)
    return draw_sample(scenario, config.directions, np.random.default_rng(stream))


def draw(sample: Sample, size: int) -> np.ndarray:
    """Frames of a sample, uint8 (T, size, size, 3), y up; edges are smoothed over one pixel."""
    centers = ((np.arange(size) + 0.5) / size * WORLD).astype(np.float32)
    pixel = WORLD / size
    frames = np.full((len(sample.positions), size, size, 3), 255.0, np.float32)
    for ball, (radius, color) in enumerate(zip(sample.radii, COLORS, strict=False)):
        x, y = sample.positions[:, ball].T.astype(np.float32)
        dx = centers[None, None, :] - x[:, None, None]
        dy = centers[None, ::-1, None] - y[:, None, None]
        cover = np.clip((radius - np.hypot(dx, dy)) / np.float32(pixel) + 0.5, 0, 1)[..., None]
        frames += cover * (np.array(color, np.float32) - frames)
    return np.rint(frames).astype(np.uint8)
