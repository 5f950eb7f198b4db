"""The `phyworld` stage: PhyWorld's three scenarios, drawn from formulas, in its published layout.

    <out>/id_ood_data/{uniform_motion,parabola,collision}_{30K,eval}.hdf5

White ground, ball 1 red, ball 2 blue. Every sample is a function of (seed, split, scenario, index);
velocities and radii are the ground truth, in init_streams. Nothing is simulated and nothing needs
downloading.

A world of 10 x 10 units, y up, without walls; 32 frames every 0.1 s, the first one after one
integration step of 0.01 s. Ranges and timing after github.com/phyworld/phyworld (arXiv 2411.02385).
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from invact_vla.core.run_folder import open_run
from invact_vla.data.hdf5_file import write_shards
from invact_vla.data.video.video_io import write_video
from latent_actions.video.workers import run_parallel

WORLD = 10.0  # side of the world, units
STEP_S = 0.01  # integration step of the published generator
FRAME_S = 0.1  # time between frames
FRAMES = 32
GRAVITY = 2.5  # units / s^2, parabola only
MARGIN = 0.05 * WORLD
VISIBLE_FRAMES = 16  # at least as many frames show the whole ball in uniform motion
SPEEDS = (1.0, 4.0)  # in distribution, units / s
RADII = {"uniform_motion": (0.7, 1.4), "parabola": (0.7, 1.4), "collision": (0.5, 1.5)}
Scenario = Literal["uniform_motion", "parabola", "collision"]
SCENARIOS: tuple[Scenario, ...] = ("uniform_motion", "parabola", "collision")
DIRECTIONS = {"right": (1.0, 0.0), "left": (-1.0, 0.0), "up": (0.0, 1.0), "down": (0.0, -1.0)}
AT_REST = 0.05  # slower than this is no movement, units / s
RADIUS_BINS = (0.0, 0.7, 1.0, 1.3)  # lower edges, units
HEIGHT_BINS = 4
FOLDER = "id_ood_data"
COLORS = ((255.0, 0.0, 0.0), (0.0, 0.0, 255.0))
SPLIT_NAMES = ("30K", "eval")  # of the training and of the evaluation files


@dataclass(frozen=True)
class Sample:
    """One scene. positions: float64 (FRAMES, balls, 2), world units; radii, speeds: (balls,)."""

    positions: np.ndarray
    radii: tuple[float, ...]
    speeds: tuple[float, ...]

    @property
    def init(self) -> list[float]:
        """As published: [r1, v1] or [r1, r2, v1, v2]."""
        return [*self.radii, *self.speeds]


def frame_times() -> np.ndarray:
    """Times of the frames, seconds, (FRAMES,)."""
    return STEP_S + FRAME_S * np.arange(FRAMES)


def uniform_motion(start: np.ndarray, direction: str, radius: float, speed: float) -> Sample:
    """A ball at constant speed. start: (2,), world units."""
    step = np.array(DIRECTIONS[direction]) * speed
    return Sample((start + frame_times()[:, None] * step)[:, None], (radius,), (speed,))


def parabola(start: np.ndarray, direction: str, radius: float, speed: float) -> Sample:
    """A ball thrown to the right or left. The fall is that of the published integrator (semi-
    implicit Euler): g t (t + step) / 2."""
    sample = uniform_motion(start, direction, radius, speed)
    times = frame_times()
    sample.positions[:, 0, 1] -= GRAVITY * times * (times + STEP_S) / 2
    return sample


def collision(
    x: tuple[float, float], height: float, radii: tuple[float, float], speeds: tuple[float, float]
) -> Sample:
    """Two balls that meet head-on and part elastically; the left one moves right at speeds[0], the
    right one left at speeds[1]. Masses ~ radius^2."""
    before = np.array([speeds[0], -speeds[1]])
    after = np.array(speeds_after(radii, speeds))
    contact_s = contact_time(x[1] - x[0], radii, speeds)
    times = frame_times()[:, None]
    along = np.array(x) + np.minimum(times, contact_s) * before
    along = along + np.maximum(times - contact_s, 0) * after
    return Sample(np.stack([along, np.full_like(along, height)], -1), radii, speeds)


def contact_time(distance: float, radii: tuple[float, float], speeds: tuple[float, float]) -> float:
    """Seconds until two balls touch whose centers are `distance` apart; a large number if never."""
    closing = sum(speeds)
    return max(distance - sum(radii), 0.0) / closing if closing > 0 else 1e9


def speeds_after(radii: tuple[float, float], speeds: tuple[float, float]) -> tuple[float, float]:
    """Signed speeds (right is positive) after a head-on elastic collision."""
    m1, m2 = radii[0] ** 2, radii[1] ** 2
    u1, u2 = speeds[0], -speeds[1]
    total = m1 + m2
    return ((m1 - m2) * u1 + 2 * m2 * u2) / total, ((m2 - m1) * u2 + 2 * m1 * u1) / total


def draw_sample(
    scenario: Scenario, directions: tuple[str, ...], rng: np.random.Generator
) -> Sample:
    """A random scene of one scenario, in distribution. directions: of uniform motion and, right and
    left, of the parabola."""
    if scenario == "collision":
        return _draw_collision(rng)
    radius, speed = rng.uniform(*RADII[scenario]), rng.uniform(*SPEEDS)
    sides = [d for d in directions if scenario == "uniform_motion" or d in ("right", "left")]
    direction = sides[rng.integers(len(sides))]
    run = VISIBLE_FRAMES * FRAME_S * speed + radius  # room that the ball needs ahead of it
    ahead = rng.uniform(radius, max(WORLD - run, radius))
    top = WORLD - MARGIN - radius
    across = rng.uniform(radius + MARGIN if scenario == "uniform_motion" else top - 1.0, top)
    along = ahead if direction in ("right", "up") else WORLD - ahead
    start = np.array([along, across] if direction in ("right", "left") else [across, along])
    move = uniform_motion if scenario == "uniform_motion" else parabola
    return move(start, direction, radius, speed)


def _draw_collision(rng: np.random.Generator) -> Sample:
    """Balls that touch between the 4th and the 24th frame."""
    low, high = RADII["collision"]
    while True:
        radii = (rng.uniform(low, high), rng.uniform(low, high))
        speeds = (rng.uniform(*SPEEDS), rng.uniform(*SPEEDS))
        gap = rng.uniform(4, 24) * FRAME_S * sum(speeds)
        room = WORLD - 2 * sum(radii) - gap
        if room > 0:
            break
    left = radii[0] + rng.uniform(0, room)
    height = rng.uniform(max(radii) + MARGIN, WORLD - MARGIN - max(radii))
    return collision((left, left + gap + sum(radii)), height, radii, speeds)


def event_of(scenario: Scenario, positions: np.ndarray, init: np.ndarray) -> str:
    """Name of the event, the label of retrieval. positions: (T, balls, 2); init as published.

    Uniform motion and parabola: the direction. Collision: which way each ball goes after the
    impact, and which one came faster."""
    if scenario == "collision":
        r1, r2, v1, v2 = (float(value) for value in init[:4])
        distance = float(positions[0, 1, 0] - positions[0, 0, 0]) + STEP_S * (v1 + v2)
        if contact_time(distance, (r1, r2), (v1, v2)) > STEP_S + FRAME_S * (FRAMES - 1):
            return "approach"
        red, blue = speeds_after((r1, r2), (v1, v2))
        faster = "red" if v1 > v2 else "blue"
        return f"collide: red {_way(red)}, blue {_way(-blue)}, {faster} faster"
    velocity = (positions[1, 0] - positions[0, 0]) / FRAME_S
    axis = 0 if scenario == "parabola" else int(np.abs(velocity).argmax())
    if abs(velocity[axis]) < AT_REST:
        return "fall straight" if scenario == "parabola" else "rest"
    direction = (("left", "right"), ("down", "up"))[axis][int(velocity[axis] > 0)]
    return f"{'fall' if scenario == 'parabola' else 'move'} {direction}"


def _way(speed: float) -> str:
    """speed: along the way that the ball came."""
    if abs(speed) < AT_REST:
        return "stops"
    return "goes on" if speed > 0 else "goes back"


def tags_of(scenario: Scenario, positions: np.ndarray, init: np.ndarray) -> dict[str, str | float]:
    """Labels, ground truth and the nuisances that must not decide retrieval: scenario, event, r1, v1
    (r2, v2), radius_bin, height_bin, in_distribution (1 or 0)."""
    balls = positions.shape[1]
    radii, speeds = init[:balls], init[balls : 2 * balls]
    ranges = ((radii, RADII[scenario]), (speeds, SPEEDS))
    inside = all(((v >= low - 1e-6) & (v <= high + 1e-6)).all() for v, (low, high) in ranges)
    height = float(positions[0, 0, 1]) / WORLD
    return {
        "scenario": scenario,
        "event": event_of(scenario, positions, init),
        "radius_bin": f"r{int(np.searchsorted(RADIUS_BINS, radii.mean(), 'right')) - 1}",
        "height_bin": f"h{int(np.clip(height * HEIGHT_BINS, 0, HEIGHT_BINS - 1))}",
        "in_distribution": int(inside),
        **{f"r{i + 1}": float(radius) for i, radius in enumerate(radii)},
        **{f"v{i + 1}": float(speed) for i, speed in enumerate(speeds)},
    }


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
