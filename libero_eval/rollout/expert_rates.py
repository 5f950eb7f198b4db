"""`invact libero demonstrate`: how often the scripted expert succeeds, without rendering.

<out>/episodes.json     one row an episode: task, init state, success, steps
<out>/summary.json      k/n and mean steps of each task
"""

import logging
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from invact_vla.core.files import write_json
from invact_vla.core.run_folder import open_run
from invact_vla.stats import wilson
from libero_eval.env import gl
from libero_eval.env.assets.pack import AssetPack, ProceduralPack
from libero_eval.env.protocol import DEFAULT_PROTOCOL, get_protocol
from libero_eval.env.tasks import instruction, task_name
from libero_eval.executors import OneByOne, run_all
from libero_eval.expert.recipes import RECIPES, recipe
from libero_eval.rollout.episode import Job

if TYPE_CHECKING:
    from libero_eval.env.sim import LiberoSim

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DemonstrateConfig:
    """Which episodes the expert is tried on."""

    out: Path = Path("runs/demonstrate")  # run folder
    seed: int = 0  # unused by the expert, which has no randomness; part of the run's key
    overwrite: bool = False  # replace a run of another config in `out`
    protocol: str = DEFAULT_PROTOCOL  # suite/name: settle steps and the largest number of steps
    assets: AssetPack = field(default_factory=ProceduralPack)  # what the world is made of
    tasks: tuple[int, ...] = ()  # places in the suite; none given: all with a recipe
    first_init: int = 0  # first init state of each task
    init_states: int = 20  # init states a task
    workers: int = 2  # processes; 0 runs in this one; results do not depend on it

    def __post_init__(self) -> None:
        if self.first_init < 0 or self.init_states < 1 or self.workers < 0:
            raise ValueError("need first_init >= 0, init_states >= 1 and workers >= 0")


@dataclass(frozen=True)
class Trial:
    """One episode of the expert. steps: until success, or the protocol's largest number."""

    task_id: int
    init_index: int
    success: bool
    steps: int


@dataclass(frozen=True)
class TrialFactory:
    """Makes, in a worker, the function that runs one (task, init state)."""

    protocol: str
    assets: Path

    def __call__(self) -> OneByOne[Job, Trial]:
        return OneByOne(TrialRunner(self.protocol, self.assets))


class TrialRunner:
    """Runs episodes, keeping the simulator of the last task."""

    def __init__(self, protocol: str, assets: Path) -> None:
        gl.probe()
        self._protocol = get_protocol(protocol)
        self._assets = assets
        self._sim: LiberoSim | None = None

    def __call__(self, job: Job) -> Trial:
        from libero_eval.env.sim import LiberoSim
        from libero_eval.expert.expert import Expert

        task_id, init_index = job.task_id, job.init_index
        p = self._protocol
        if self._sim is None or self._sim.task_id != task_id:
            if self._sim is not None:
                self._sim.close()
            self._sim = LiberoSim(
                p.suite, task_id, self._assets, cameras=(), settle_steps=p.settle_steps,
                settle_action=p.settle_action, reset_seed=p.reset_seed,
                reseed=p.reseed,
            )  # fmt: skip
        self._sim.reset(init_index)
        policy = Expert(self._sim)
        policy.reset(0)
        for step in range(p.max_steps):
            if self._sim.step(policy.act().values[0]):
                return Trial(task_id, init_index, True, step + 1)
        return Trial(task_id, init_index, False, p.max_steps)


def main(config: DemonstrateConfig) -> Path:
    """Run the trials and print the table. Returns the run folder."""
    protocol = get_protocol(config.protocol)
    tasks = config.tasks or tuple(t for s, t in sorted(RECIPES) if s == protocol.suite)
    for task in tasks:
        recipe(protocol.suite, task)
    assets = config.assets.build()
    run = open_run(config.out, config, {"assets": assets}, config.overwrite, config.seed)
    if run.finished:
        print((run.folder / "table.txt").read_text(), end="")
        return run.folder
    inits = range(config.first_init, config.first_init + config.init_states)
    jobs = [Job(task, init) for task, init in product(tasks, inits)]
    results = run_all(TrialFactory(config.protocol, assets), jobs, config.workers)
    trials = list(tqdm(results, total=len(jobs), desc="demonstrate", unit="episode"))
    trials.sort(key=lambda t: (t.task_id, t.init_index))
    rows = [_task_row(protocol.suite, task, trials) for task in tasks]
    text = _table(rows, config.assets.name)
    (run.folder / "table.txt").write_text(text)
    write_json(run.folder / "episodes.json", [asdict(t) for t in trials])
    run.finish({"pack": config.assets.name, "protocol": protocol.key, "tasks": rows})
    print(text, end="")
    return run.folder


def _task_row(suite: str, task: int, trials: list[Trial]) -> dict[str, Any]:
    """Counts of one task; steps are averaged over successes only."""
    mine = [t for t in trials if t.task_id == task]
    steps = [t.steps for t in mine if t.success]
    low, high = wilson(len(steps), len(mine))
    return {
        "task_id": task,
        "instruction": instruction(task_name(suite, task)),
        "successes": len(steps),
        "episodes": len(mine),
        "interval_95": [round(low, 4), round(high, 4)],
        "mean_steps": round(sum(steps) / len(steps), 1) if steps else None,
        "max_steps": max(steps, default=None),
        "failed_init_states": [t.init_index for t in mine if not t.success],
    }


def _table(rows: list[dict[str, Any]], pack: str) -> str:
    lines = [f"expert, {pack} assets", "task  success  95 % interval  steps mean/max"]
    for row in rows:
        low, high = row["interval_95"]
        lines.append(
            f"{row['task_id']:>4}  {row['successes']:>3}/{row['episodes']:<3}  "
            f"{low:.2f}-{high:.2f}      {row['mean_steps']}/{row['max_steps']}  "
            f"{row['instruction']}"
        )
    return "\n".join(lines) + "\n"
