"""What `invact libero rollout` runs: its config, the protocol and the episodes that follow from it."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from invact_vla.core.errors import UserError
from libero_eval.env.assets.pack import AssetPack, ProceduralPack
from libero_eval.env.init_states import check_range, init_states
from libero_eval.env.protocol import DEFAULT_PROTOCOL, Protocol, get_protocol
from libero_eval.env.tasks import check_tasks, is_own, task_names
from libero_eval.executors import ExecutorConfig, SerialConfig
from libero_eval.perturbations import PerturbationsConfig
from libero_eval.policies import PolicyConfig
from libero_eval.results.rows import Shard
from libero_eval.rollout.early_stop import EarlyStop, balanced_order
from libero_eval.rollout.episode import Job
from libero_eval.rollout.episode_video import VideoConfig


@dataclass(frozen=True, kw_only=True)
class RolloutConfig:
    """A policy, a protocol, and which of its episodes to run."""

    out: Path  # run folder
    policy: PolicyConfig  # who acts: --policy.type checkpoint --policy.folder DIR
    policy_name: str = "policy"  # name of this policy in tables
    seed: int = 0  # drives the policy's randomness; layouts come from init states and protocol
    overwrite: bool = False  # replace a run of another config in `out`
    protocol: str = DEFAULT_PROTOCOL  # suite/name, see libero_eval/env/protocol.py
    suite: str = ""  # a suite of LIBERO or a folder of own tasks, in place of the protocol's
    assets: AssetPack = field(default_factory=ProceduralPack)  # what the world is drawn with
    # of camera, light, objects and words; become part of the protocol's name
    perturbations: PerturbationsConfig = field(default_factory=PerturbationsConfig)
    tasks: tuple[int, ...] = ()  # indices in the suite; none given: all
    first_init: int = 0  # first init state of each task
    episodes: int | None = None  # init states per task; none given: the protocol's trials
    more: dict[int, int] = field(default_factory=dict)  # {task: init states} where not `episodes`
    max_steps: int | None = None  # other horizon than the protocol's; becomes part of its name
    render_px: int | None = None  # other frame size than the protocol's; becomes part of its name
    videos: VideoConfig = field(default_factory=VideoConfig)  # which episodes are filmed
    early_stop: EarlyStop | None = None  # a rule to end the run by, with an interval that holds
    shard: str = "0/1"  # i/n runs the i-th of n equal parts; `libero merge` joins them
    executor: ExecutorConfig = field(default_factory=SerialConfig)  # where the episodes run
    workers: int = 0  # short for --executor.type processes --executor.workers N; 0 leaves executor
    in_flight: int = 1  # episodes side by side in a process, their policy calls in one batch
    inference: str = "worker"  # worker: a policy in each process; central: one serves them all
    max_errors: int = 5  # stop the run after this many episodes that ended as errors

    def __post_init__(self) -> None:
        if self.first_init < 0 or (self.episodes is not None and self.episodes < 1):
            raise ValueError("need first_init >= 0 and episodes >= 1")
        if min(self.more.values(), default=1) < 1:
            raise ValueError(f"`more` must give each task 1 init state or more, got {self.more}")
        if self.workers < 0 or self.max_errors < 1 or self.in_flight < 1:
            raise ValueError("need workers >= 0, max_errors >= 1 and in_flight >= 1")
        if self.inference not in ("worker", "central"):
            raise ValueError(f"inference must be worker or central, got {self.inference!r}")
        if self.workers and not isinstance(self.executor, SerialConfig):
            raise ValueError("give either workers or an executor, not both")
        if Shard.parse(self.shard).of > 1 and self.early_stop is not None:
            raise ValueError("a shard sees a part of the run only: early_stop cannot judge by it")
        for name in ("max_steps", "render_px"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")


def protocol_of(config: RolloutConfig) -> Protocol:
    """The named protocol with the config's deviations, which its name then states."""
    protocol = get_protocol(config.protocol, config.suite)
    for field_name in ("max_steps", "render_px"):
        value = getattr(config, field_name)
        if value is not None and value != getattr(protocol, field_name):
            name = f"{protocol.name}, {field_name} {value}"
            protocol = replace(protocol, name=name, **{field_name: value})
    if config.perturbations.label:
        protocol = replace(protocol, name=f"{protocol.name}, {config.perturbations.label}")
    return protocol


def jobs_of(config: RolloutConfig) -> list[Job]:
    """The shard's episodes, task by task, or in the rounds of early_stop.

    Raises UserError for an unknown task, and for init states that it does not have.
    """
    protocol = get_protocol(config.protocol, config.suite)
    tasks = config.tasks or tuple(range(len(task_names(protocol.suite))))
    check_tasks(protocol.suite, tasks)
    unknown = set(config.more) - set(tasks)
    if unknown:
        raise UserError(f"`more` names tasks {sorted(unknown)} that are not run: {list(tasks)}")
    jobs = []
    for task in tasks:
        trials = protocol.trials  # of own tasks, as many as they have init states
        states = init_states(protocol.suite, task) if is_own(protocol.suite) else None
        if states is not None:
            trials = max(1, min(trials, len(states) - config.first_init))
        count = config.more.get(task, config.episodes or trials)
        check_range(protocol.suite, task, config.first_init, count)
        inits = range(config.first_init, config.first_init + count)
        filmed = set(inits[: config.videos.per_task])
        jobs += [Job(task, init, init in filmed) for init in inits]
    if config.early_stop is not None:
        return balanced_order(jobs, config.early_stop.per_round)
    part = Shard.parse(config.shard).part(jobs)
    if not part:
        raise UserError(f"shard {config.shard} of {len(jobs)} episodes is empty: make fewer shards")
    return part
