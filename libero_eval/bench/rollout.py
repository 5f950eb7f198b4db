"""`invact bench rollout`: environment steps a second, beside the public evaluation loop, in one run.

- public: OpenVLA's loop in one process; both cameras at every step by robosuite's own renderer,
  hard reset each episode, no thread variables
- ours: `workers` processes with one thread each; one camera, every step or every `chunk` steps
- physics: ours without any frame, the limit

Every loop runs in processes of its own, and the loops take turns, so that the load of the machine
hits all alike. The actions are the same and cost nothing.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import IO, Any

from tqdm import tqdm

from invact_vla.core.errors import UserError
from invact_vla.core.machine import cpu_name
from invact_vla.core.run_folder import save_result
from libero_eval.bench.loops import MARK, BenchJob, Phase
from libero_eval.env.assets.pack import AssetPack, ProceduralPack
from libero_eval.env.protocol import DEFAULT_PROTOCOL, get_protocol
from libero_eval.env.tasks import task_name
from libero_eval.executors.child_process import ONE_THREAD


@dataclass(frozen=True, kw_only=True)
class BenchRolloutConfig:
    """What to measure, and how often."""

    assets: AssetPack = field(default_factory=ProceduralPack)  # what the world is drawn with
    protocol: str = DEFAULT_PROTOCOL  # suite/name; gives the frame size and the settle steps
    tasks: tuple[int, ...] = (0, 2, 9)  # places in the suite
    repeats: int = 2  # of every loop on every task
    episodes: int = 2  # a loop, process and repeat
    steps: int = 32  # timed steps an episode
    chunk: int = 8  # steps between two frames of the open-loop policy
    workers: int = 2  # processes of ours
    out: Path | None = None  # run folder for bench.json, every number

    def __post_init__(self) -> None:
        for name in ("repeats", "episodes", "steps", "chunk", "workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.tasks:
            raise ValueError("name at least one task")


@dataclass(frozen=True, kw_only=True)
class Round:
    """One turn of all loops on one task: [public, ours] of each quantity, and the limit."""

    task: int
    every_step: tuple[float, float]  # steps/s
    chunks: tuple[float, float]  # steps/s
    cpu_ms: tuple[float, float]  # processor time of a step with its frames, every thread
    chunk_cpu_ms: tuple[float, float]
    reset_ms: tuple[float, float]
    start_ms: tuple[float, float]  # reset and settle steps
    frame_ms: tuple[float, float]
    physics: float  # steps/s of ours without frames
    steps: tuple[int, int]  # timed, each mode


# row of the table -> (field of a round, unit); rates are divided ours by public, times the other way
ROWS = {
    "one camera every step": ("every_step", "steps/s"),
    "one camera a chunk": ("chunks", "steps/s"),
    "CPU a step, every step": ("cpu_ms", "ms"),
    "CPU a step, chunks": ("chunk_cpu_ms", "ms"),
    "reset": ("reset_ms", "ms"),
    "reset and settle": ("start_ms", "ms"),
    "agentview frame": ("frame_ms", "ms"),
}


def main(config: BenchRolloutConfig) -> int:
    """Measure and print; returns 0."""
    suite = get_protocol(config.protocol).suite
    for task in config.tasks:
        task_name(suite, task)
    assets = config.assets.build()
    before = os.getloadavg()[0]
    turns = [task for _ in range(config.repeats) for task in config.tasks]
    rounds = [measure(config, assets, task) for task in tqdm(turns, desc="bench")]
    numbers = {"cpu": cpu_name(), "load": [before, os.getloadavg()[0]], "pack": config.assets.name}
    print(report(config, rounds, numbers))
    if config.out is not None:
        figures = {**numbers, "rounds": [asdict(r) for r in rounds]}
        save_result(config.out, config, "bench.json", figures)
    return 0


def measure(config: BenchRolloutConfig, assets: Path, task: int) -> Round:
    """All loops once, one after the other."""
    job = BenchJob(
        loop="public", protocol=config.protocol, task=task, assets=str(assets), first=0,
        episodes=config.episodes, steps=config.steps, chunks=[1],
    )  # fmt: skip
    ((public,),) = run([job])
    ours = replace(job, loop="ours", chunks=[1, config.chunk, 0])
    firsts = [config.episodes * worker for worker in range(config.workers)]
    every, chunks, physics = run([replace(ours, first=first) for first in firsts])
    own = [*every, *chunks, *physics]
    return Round(
        task=task,
        every_step=(rate([public]), rate(every)),
        chunks=(rate([public]), rate(chunks)),
        cpu_ms=(cpu_ms([public]), cpu_ms(every)),
        chunk_cpu_ms=(cpu_ms([public]), cpu_ms(chunks)),
        reset_ms=(median_ms([public], "resets"), median_ms(own, "resets")),
        start_ms=(median_ms([public], "starts"), median_ms(own, "starts")),
        frame_ms=(median_ms([public], "frames"), median_ms(every, "frames")),
        physics=rate(physics),
        steps=(public.steps, sum(phase.steps for phase in every)),
    )


def rate(together: list[Phase]) -> float:
    """Steps a second of processes that ran side by side: the sum of theirs, resets left out."""
    return sum(phase.steps / sum(phase.stepping) for phase in together)


def cpu_ms(phases: list[Phase]) -> float:
    """Processor time of a step, all threads, ms: depends least on what else the machine does."""
    return 1000 * sum(sum(p.cpu) for p in phases) / sum(p.steps for p in phases)


def median_ms(phases: list[Phase], what: str) -> float:
    """Median of a list of the phases, in ms."""
    return 1000 * median(seconds for phase in phases for seconds in getattr(phase, what))


def run(jobs: list[BenchJob]) -> list[list[Phase]]:
    """Run jobs side by side, a process each; returns the phases, each with one entry a job."""
    with ExitStack() as stack:
        children = [stack.enter_context(start(job)) for job in jobs]
        stack.callback(lambda: [child.kill() for child in children])
        together = []
        for _ in jobs[0].chunks:
            for child in children:
                if listen(child) != "ready":
                    raise UserError("bench: a process answered before it was asked")
            for child in children:
                words: IO[str] | Any = child.stdin
                words.write("\n")  # lets it begin its next phase
                words.flush()
            together.append([Phase(**json.loads(listen(child))) for child in children])
        return together


def start(job: BenchJob) -> subprocess.Popen[str]:
    """A process for a job; the public loop's has no thread variables, as nobody sets any there."""
    environment = {name: value for name, value in os.environ.items() if name not in ONE_THREAD}
    if job.loop == "ours":
        environment |= ONE_THREAD
    words = [sys.executable, "-m", "libero_eval.bench.loops", json.dumps(asdict(job))]
    return subprocess.Popen(
        words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def listen(child: subprocess.Popen[str]) -> str:
    """The child's next message; UserError if it ends without one."""
    output: IO[str] | Any = child.stdout
    for line in output:
        if line.startswith(MARK):
            return line.removeprefix(MARK).strip()
    raise UserError(f"bench: a loop ended with exit code {child.wait()}; see its messages above")


def report(config: BenchRolloutConfig, rounds: list[Round], numbers: dict[str, Any]) -> str:
    """The table: median, and smallest to largest, over the rounds."""
    first, last = numbers["load"]
    lines = [
        f"{config.protocol}, tasks {list(config.tasks)}, pack {numbers['pack']}, {numbers['cpu']}, "
        f"{os.cpu_count()} cores, load {first:.1f} before and {last:.1f} after",
        f"{len(rounds)} rounds; a mode and round: {rounds[0].steps[0]} public steps, "
        f"{rounds[0].steps[1]} of ours by {config.workers} workers; median (smallest - largest)",
        f"{'':24}{'unit':>8}{'public':>28}{'ours':>28}{'times faster':>28}",
    ]
    for name, (key, unit) in ROWS.items():
        public, ours = zip(*(getattr(r, key) for r in rounds), strict=True)
        pairs = zip(public, ours, strict=True)
        ratios = [b / a if unit == "steps/s" else a / b for a, b in pairs]
        cells = "".join(f"{spread(values):>28}" for values in (public, ours, ratios))
        lines.append(f"{name:24}{unit:>8}{cells}")
    limit = spread([r.physics for r in rounds])
    return "\n".join([*lines, f"{'no frames (the limit)':24}{'steps/s':>8}{'':28}{limit:>28}"])


def spread(values: Sequence[float]) -> str:
    """Median, and the range."""
    return f"{median(values):.1f} ({min(values):.1f} - {max(values):.1f})"
