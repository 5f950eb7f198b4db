"""`invact libero demonstrate`: how often the scripted expert succeeds, without rendering.

<out>/episodes.json     one row per episode: task, init state, success, steps
<out>/summary.json      k/n and mean steps of each task
"""

from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from tqdm import tqdm

from invact_vla.core.errors import UserError
from invact_vla.core.files import write_json
from invact_vla.core.run_folder import open_run
from invact_vla.stats.rates import wilson
from libero_eval.env import gl
from libero_eval.env.assets.pack import AssetPack, ProceduralPack
from libero_eval.env.init_states import check_range
from libero_eval.env.protocol import DEFAULT_PROTOCOL, get_protocol
from libero_eval.env.tasks import check_tasks, instruction, task_name
from libero_eval.executors import run_all
from libero_eval.expert.recipes import RECIPES, recipe
from libero_eval.perturbations import PerturbationsConfig
from libero_eval.policies import DemonstratorConfig
from libero_eval.results.rows import EpisodeRow
from libero_eval.rollout.episode import Job, RunLabels
from libero_eval.rollout.episode_video import VideoConfig
from libero_eval.rollout.runner import EpisodeRunnerFactory, OpenLibero


@dataclass(frozen=True, kw_only=True)
class DemonstrateConfig:
    """Which episodes the expert is tried on."""

    out: Path = Path("runs/demonstrate")  # run folder
    seed: int = 0  # unused by the expert, which has no randomness; part of the run's key
    overwrite: bool = False  # replace a run of another config in `out`
    protocol: str = DEFAULT_PROTOCOL  # suite/name: settle steps and the largest number of steps
    assets: AssetPack = field(default_factory=ProceduralPack)  # what the world is made of
    tasks: tuple[int, ...] = ()  # indices in the suite; none given: all with a recipe
    first_init: int = 0  # first init state of each task
    init_states: int = 20  # init states per task
    workers: int = 2  # processes; 0 runs in this one; results do not depend on it

    def __post_init__(self) -> None:
        if self.first_init < 0 or self.init_states < 1 or self.workers < 0:
            raise ValueError("need first_init >= 0, init_states >= 1 and workers >= 0")


def main(config: DemonstrateConfig) -> Path:
    """Run the episodes and print the table. Returns the run folder."""
    protocol = get_protocol(config.protocol)
    tasks = config.tasks or tuple(t for s, t in sorted(RECIPES) if s == protocol.suite)
    check_tasks(protocol.suite, tasks)
    for task in tasks:
        recipe(protocol.suite, task)
        check_range(protocol.suite, task, config.first_init, config.init_states, "init_states")
    assets = config.assets.build()
    run = open_run(config.out, config, {"assets": assets}, config.overwrite, config.seed)
    if run.finished:
        print((run.folder / "table.txt").read_text(), end="")
        return run.folder
    inits = range(config.first_init, config.first_init + config.init_states)
    jobs = [Job(task, init) for task, init in product(tasks, inits)]
    policy, no_video = DemonstratorConfig(), VideoConfig(per_task=0)
    labels = RunLabels(
        policy_name="expert", seed=config.seed, checkpoint_hash=policy.hash(), protocol=protocol,
        pack=config.assets.name, pack_hash=config.assets.hash(), manifest_hash="",
    )  # fmt: skip
    open_simulator = OpenLibero(protocol, assets, gl.probe(), PerturbationsConfig())
    factory = EpisodeRunnerFactory(policy, open_simulator, labels, no_video, run.folder)
    results = run_all(factory, jobs, config.workers)
    episodes = list(tqdm(results, total=len(jobs), desc="demonstrate", unit="episode"))
    episodes.sort(key=lambda row: row.key)
    for row in episodes:
        if row.outcome == "error":
            raise UserError(f"the expert was not measured: {row.reason}")
    rows = [_task_row(protocol.suite, task, episodes) for task in tasks]
    text = _table(rows, config.assets.name)
    (run.folder / "table.txt").write_text(text)
    content = [
        {"task_id": row.task_id, "init_index": row.init_index, "steps": row.steps,
         "success": row.outcome == "success"}
        for row in episodes
    ]  # fmt: skip
    write_json(run.folder / "episodes.json", content)
    run.finish({"pack": config.assets.name, "protocol": protocol.key, "tasks": rows})
    print(text, end="")
    return run.folder


def _task_row(suite: str, task: int, episodes: list[EpisodeRow]) -> dict[str, Any]:
    rows = [row for row in episodes if row.task_id == task]
    steps = [row.steps for row in rows if row.outcome == "success"]
    low, high = wilson(len(steps), len(rows))
    return {
        "task_id": task,
        "instruction": instruction(task_name(suite, task)),
        "successes": len(steps),
        "episodes": len(rows),
        "interval_95": [round(low, 4), round(high, 4)],
        "mean_steps": round(sum(steps) / len(steps), 1) if steps else None,
        "max_steps": max(steps, default=None),
        "failed_init_states": [row.init_index for row in rows if row.outcome != "success"],
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
