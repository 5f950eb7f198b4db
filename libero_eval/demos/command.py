"""`invact libero demos`: scripted demonstrations as LIBERO's own HDF5 files.

    <out>/<task name>_demo.hdf5     one file a task, as LIBERO's data sets are named
    <out>/lerobot/                  the same as one LeRobot v3 data set, if asked for
    <out>/summary.json              demonstrations, attempts and mean steps of each task

Attempt i of a task is a pure function of (seed, task, i). The file holds the first n attempts that
succeeded (and, if asked, whose replay succeeds), so that neither the number of workers nor an
interruption changes a byte of it.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from invact_vla.core.errors import UserError
from invact_vla.core.files import read_json, write_json
from invact_vla.core.run_folder import open_run
from invact_vla.data.dataset import DatasetConfig, whole_episodes
from invact_vla.data.readers import open_dataset
from invact_vla.data.readers.lerobot_writer import write_lerobot
from libero_eval.demos.recording import (
    Recording,
    Turns,
    merge_demonstrations,
    play,
    replays,
    write_demonstration,
)
from libero_eval.env import gl
from libero_eval.env.assets.pack import AssetPack, ProceduralPack
from libero_eval.env.protocol import get_protocol
from libero_eval.env.tasks import (
    bddl_file,
    check_tasks,
    problem_name,
    task_instruction,
    task_name,
    task_names,
)
from libero_eval.executors import OneByOne, run_all
from libero_eval.expert import RECIPES, Expert
from libero_eval.expert.hand import PLAIN, random_style
from libero_eval.expert.recipes import recipe
from libero_eval.policies import PolicyConfig

if TYPE_CHECKING:
    from libero_eval.env.sim import LiberoSim

INIT_STATES = 50  # LIBERO's, a task


@dataclass(frozen=True, kw_only=True)
class DemosConfig:
    """Which demonstrations to make."""

    out: Path  # run folder
    seed: int = 0  # drives layouts and noise
    overwrite: bool = False  # replace a run of another config in `out`
    suite: str = "libero_10"  # LIBERO suite
    tasks: tuple[int, ...] = ()  # places in the suite; none given: all with a recipe
    n_per_task: int = 50  # demonstrations a task
    assets: AssetPack = field(default_factory=ProceduralPack)  # what the world is drawn with
    image_size: int = 128  # pixels, square
    wrist: bool = False  # store the hand camera too (rendering time doubles)
    init: str = "random"  # "random" layouts from the BDDL regions, or LIBERO's "init_states"
    first_init: int = 0  # first init state, when init is init_states
    styles: bool = False  # draw pace, height and approach of the hand for each demonstration
    noise_prob: float = 0.0  # probability that the action executed in a step is disturbed
    noise_scale: float = 0.3  # spread of that noise, in units of the action
    # a policy that takes turns with the expert, whose answers to what it meets can be learned from
    # (DAgger); none given: the expert alone
    policy: PolicyConfig | None = None
    policy_prob: float = 0.6  # probability that a turn is the policy's
    turn_steps: int = 24  # steps of a turn
    max_steps: int = 400  # an attempt that takes longer is skipped
    max_attempts: int = 4  # attempts a wanted demonstration before giving up
    verify: bool = True  # keep only demonstrations whose replay reaches the goal
    lerobot: bool = False  # write a LeRobot v3 data set too, with the expert's actions
    workers: int = 2  # processes; 0 runs in this one; the files do not depend on it

    def __post_init__(self) -> None:
        if self.init not in ("random", "init_states"):
            raise ValueError(f"init must be random or init_states, got {self.init!r}")
        if not 0 <= self.noise_prob <= 1 or self.noise_scale < 0:
            raise ValueError("need noise_prob in [0, 1] and noise_scale >= 0")
        if not 0 <= self.policy_prob < 1:
            raise ValueError(f"policy_prob must be in [0, 1), got {self.policy_prob}")
        if self.policy is not None and self.lerobot:
            raise ValueError("lerobot has no place for whose turn it was: leave it, or the policy")
        for name in ("n_per_task", "image_size", "max_steps", "max_attempts", "turn_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.workers < 0 or self.first_init < 0:
            raise ValueError("need workers >= 0 and first_init >= 0")
        if self.init == "init_states" and self.first_init + self.n_per_task > INIT_STATES:
            raise ValueError(f"LIBERO has {INIT_STATES} init states a task, asked for more")

    @property
    def attempts(self) -> int:
        """Most attempts a task."""
        if self.init == "init_states":
            return INIT_STATES - self.first_init
        return self.n_per_task * self.max_attempts


@dataclass(frozen=True)
class Attempt:
    """One try of the expert; its part file is named by the number."""

    task_id: int
    number: int

    def part(self, folder: Path) -> Path:
        """Where a success is kept until the task's file is complete."""
        return folder / f"task_{self.task_id}" / f"{self.number:05d}.hdf5"

    def failure(self, folder: Path) -> Path:
        """Where a failure is noted."""
        return self.part(folder).with_suffix(".json")


class AttemptRunner:
    """Plays attempts and writes their part files, keeping the simulator of the last task."""

    def __init__(self, config: DemosConfig, assets: Path, parts: Path) -> None:
        gl.probe()
        self._config, self._assets, self._parts = config, assets, parts
        self._source = None if config.policy is None else config.policy.load()
        self._sim: LiberoSim | None = None

    def __call__(self, attempt: Attempt) -> tuple[Attempt, bool]:
        """Returns the attempt, and whether it succeeded."""
        config, parts = self._config, self._parts
        sim = self._simulator(attempt.task_id)
        rng = np.random.default_rng([config.seed, attempt.task_id, attempt.number])
        layout = int(rng.integers(2**31))
        if config.init == "random":
            sim.reset_random(layout)
            where: dict[str, Any] = {"layout_seed": layout}
        else:
            sim.reset(config.first_init + attempt.number)
            where = {"init_index": config.first_init + attempt.number}
        style = random_style(rng) if config.styles else PLAIN
        noise = config.noise_prob, config.noise_scale
        with self._turns(sim, attempt) as turns:
            recording = play(sim, Expert(sim, style), rng, *noise, config.max_steps, turns)
        reason = "not solved" if recording is None else self._fault(sim, recording)
        if recording is None or reason:
            write_json(attempt.failure(parts), {"reason": reason, **where})
            return attempt, False
        attributes = {"attempt": attempt.number, **where, **asdict(style)}
        write_demonstration(attempt.part(parts), recording, attributes)
        return attempt, True

    def _fault(self, sim: "LiberoSim", recording: Recording) -> str:
        """Why a success is no demonstration; empty if it is one."""
        if self._source is not None and not any(recording.rows["interventions"]):
            return "the policy had every turn"
        if self._config.verify and not replays(sim, recording):
            return "not solved by replay"
        return ""

    @contextmanager
    def _turns(self, sim: "LiberoSim", attempt: Attempt) -> Iterator[Turns | None]:
        """With the policy, opened for one attempt, if there is one."""
        if self._source is None:
            yield None
            return
        config, policy = self._config, self._source.open(sim)
        rng = np.random.default_rng([config.seed, attempt.task_id, attempt.number, 1])
        try:
            yield Turns(sim, self._source, policy, rng, config.policy_prob, config.turn_steps)
        finally:
            self._source.release(policy)

    def _simulator(self, task_id: int) -> "LiberoSim":
        from libero_eval.env.sim import LiberoSim

        if self._sim is None or self._sim.task_id != task_id:
            if self._sim is not None:
                self._sim.close()
            config = self._config
            self._sim = LiberoSim(
                config.suite, task_id, self._assets, image_size=config.image_size,
                cameras=("agentview", "wrist") if config.wrist else ("agentview",),
            )  # fmt: skip
        return self._sim


def main(config: DemosConfig) -> Path:
    """Make the demonstrations. Returns the run folder, which holds one HDF5 file a task."""
    tasks = config.tasks or tuple(t for s, t in sorted(RECIPES) if s == config.suite)
    if not tasks:
        task_names(config.suite)  # says if there is no such suite
        raise UserError(f"no expert for any task of {config.suite}: nothing to make")
    check_tasks(config.suite, tasks)
    for task in tasks:
        recipe(config.suite, task)
    assets = config.assets.build()
    inputs: dict[str, Path] = {"assets": assets}
    if config.policy is not None:
        policy = _checked(config.policy, config)
        config = replace(config, policy=policy)
        inputs |= policy.parents()
    run = open_run(config.out, config, inputs, config.overwrite, config.seed)
    if run.finished:
        return run.folder
    gl.probe()
    parts = run.folder / "parts"
    done = {t for t in tasks if _file(config, run.folder, t).exists()}
    known = {task: _known(config, parts, task) for task in tasks if task not in done}
    make = partial(_runner, config, assets, parts)
    bar = tqdm(total=config.n_per_task * len(tasks), desc="demos", unit="demo")
    bar.update(config.n_per_task * len(done) + sum(sum(k.values()) for k in known.values()))
    for attempt, success in run_all(make, _needed(config, known), config.workers):
        successes = known[attempt.task_id]
        successes[attempt.number] = success
        bar.update(int(success and sum(successes.values()) <= config.n_per_task))
    bar.close()
    rows = [_finish_task(config, run.folder, parts, task) for task in tasks]
    if config.lerobot:
        files = [_file(config, run.folder, task) for task in tasks]
        sets = (open_dataset(DatasetConfig(path=path)) for path in files)
        episodes = (e for demos in sets for e in whole_episodes(demos, config.wrist))
        write_lerobot(run.folder / "lerobot", episodes)
    shutil.rmtree(parts, ignore_errors=True)
    run.finish({"pack": config.assets.name, "tasks": rows})
    return run.folder


def _checked(policy: PolicyConfig, config: DemosConfig) -> PolicyConfig:
    """The policy as it acts in the suite; UserError if it was made for another one, or reads a camera
    that is not recorded."""
    protocol = get_protocol(f"{config.suite}/oft")
    checked = policy.for_protocol(protocol)
    if not config.wrist:
        try:
            policy.for_protocol(replace(protocol, cameras=("agentview",)))
        except UserError as error:
            raise UserError(
                "the policy reads the wrist camera, which is not recorded: say --wrist true"
            ) from error
    return checked


def _runner(
    config: DemosConfig, assets: Path, parts: Path
) -> OneByOne[Attempt, tuple[Attempt, bool]]:
    """In a worker."""
    return OneByOne(AttemptRunner(config, assets, parts))


def _file(config: DemosConfig, folder: Path, task: int) -> Path:
    return folder / f"{task_name(config.suite, task)}_demo.hdf5"


def _known(config: DemosConfig, parts: Path, task: int) -> dict[int, bool]:
    """Of the attempts made so far, by their numbers: whether they succeeded."""
    attempts = [Attempt(task, number) for number in range(config.attempts)]
    made = [a for a in attempts if a.part(parts).exists() or a.failure(parts).exists()]
    return {attempt.number: attempt.part(parts).exists() for attempt in made}


def _needed(config: DemosConfig, known: dict[int, dict[int, bool]]) -> Iterator[Attempt]:
    """The attempts still to make, in order; ends when every task has enough successes."""
    for task, made in known.items():
        for number in range(config.attempts):
            if sum(made.values()) >= config.n_per_task:
                break
            if number not in made:
                yield Attempt(task, number)


def _finish_task(config: DemosConfig, folder: Path, parts: Path, task: int) -> dict[str, Any]:
    """Merge the first n successes of a task into its file, unless that was done; a summary row."""
    import h5py

    path = _file(config, folder, task)
    if not path.exists():
        _merge(config, path, parts, task)
    shutil.rmtree(parts / f"task_{task}", ignore_errors=True)
    with h5py.File(path, "r") as file:
        attributes: Any = file["data"].attrs
        return {
            "task_id": task,
            "file": path.name,
            "demonstrations": int(attributes["num_demos"]),
            "attempts": int(attributes["attempts"]),
            "mean_steps": round(int(attributes["total"]) / int(attributes["num_demos"]), 1),
            "bytes": path.stat().st_size,
        }


def _merge(config: DemosConfig, path: Path, parts: Path, task: int) -> None:
    name = task_name(config.suite, task)
    attempts = [Attempt(task, n) for n in range(config.attempts)]
    kept = [a for a in attempts if a.part(parts).exists()][: config.n_per_task]
    if len(kept) < config.n_per_task:
        reasons = [read_json(a.failure(parts)) for a in attempts if a.failure(parts).exists()]
        raise UserError(
            f"{name}: {len(kept)} of {config.n_per_task} demonstrations in "
            f"{len(kept) + len(reasons)} attempts, last failure: {reasons[-1]['reason']}; ask for "
            "fewer, less noise, or raise max_attempts"
        )
    bddl = bddl_file(config.suite, name)
    problem = problem_name(bddl)
    words = {
        "problem_name": problem.lower(),
        "domain_name": "robosuite",
        "language_instruction": task_instruction(config.suite, task),
    }
    environment = {
        "type": 1,
        "env_name": problem,
        "problem_name": problem.lower(),
        "bddl_file": f"{config.suite}/{bddl.name}",
        "env_kwargs": {
            "robots": ["Panda"], "controller": "OSC_POSE", "control_freq": 20,
            "camera_heights": config.image_size, "camera_widths": config.image_size,
        },
    }  # fmt: skip
    information = {
        "tag": "libero-v1",
        "env_name": problem,
        "problem_info": json.dumps(words, sort_keys=True),
        "bddl_file_name": f"{config.suite}/{bddl.name}",
        "bddl_file_content": bddl.read_text(),
        "macros_image_convention": "opengl",
        "assets": config.assets.name,
        "assets_hash": config.assets.hash(),
        "attempts": kept[-1].number + 1,
        "noise_prob": config.noise_prob,
        "noise_scale": config.noise_scale,
    }
    merge_demonstrations(path, [a.part(parts) for a in kept], information, environment)
