"""What the checks look at: the setup, the demonstrations, and the policy, loaded when first used."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invact_vla.core.cache_folder import cache_folder
from libero_eval.doctor import dataset_demos, demonstrations
from libero_eval.doctor.answers import Answers, ask_source
from libero_eval.doctor.demonstrations import Demonstrations
from libero_eval.doctor.finding import Finding
from libero_eval.doctor.training import Training, training_of
from libero_eval.env.assets.pack import AssetPack
from libero_eval.env.manifest import Manifest, environment_manifest
from libero_eval.env.protocol import Protocol
from libero_eval.policies import CheckpointConfig, PolicyConfig
from libero_eval.policy_source import PolicySource

if TYPE_CHECKING:
    from invact_vla.openvla.config import OpenVLAConfig
    from invact_vla.openvla.inference.policy import OpenVLAPolicy
    from libero_eval.env.sim import LiberoSim

DEMO_PIXELS = 128  # of the demonstrations that the doctor makes


@dataclass(frozen=True, kw_only=True)
class DoctorTarget:
    """Who is examined, and how it would be rolled out. policy: None examines the setup alone.
    demos: file or folder; None: those of its training, else made by the doctor; options: how they are
    to be read, fields of DatasetConfig. seconds: of rendering, at most."""

    policy: PolicyConfig | None
    protocol: Protocol
    assets: AssetPack
    demos: Path | None = None
    options: dict[str, Any] = field(default_factory=dict)
    frames: int = 40
    seconds: float = 60.0
    seed: int = 0


@dataclass
class DiagnosticContext:
    """A subject under examination; whatever cannot be loaded raises UserError where it is used.

    findings: the answers so far, by check.
    """

    subject: DoctorTarget
    findings: dict[str, Finding] = field(default_factory=dict)
    _sims: dict[int, "LiberoSim"] = field(default_factory=dict)

    @property
    def protocol(self) -> Protocol:
        """What it would be rolled out under."""
        return self.subject.protocol

    @cached_property
    def backend(self) -> str:
        """The GL backend that works here; UserError if none does."""
        from libero_eval.env import gl

        return gl.probe()

    @cached_property
    def manifest(self) -> Manifest:
        """Versions of what can change a score."""
        return environment_manifest("none")

    @cached_property
    def assets(self) -> Path:
        """The folder of the asset pack."""
        return self.subject.assets.build()

    def sim(self, task_id: int) -> "LiberoSim":
        """A simulator of a task as OpenVLA's protocol resets it; kept until another is asked for."""
        if task_id not in self._sims:
            assert self.backend
            from libero_eval.env.sim import LiberoSim

            self._close_sims()
            self._sims[task_id] = LiberoSim(self.protocol.suite, task_id, self.assets)
        return self._sims[task_id]

    def close(self) -> None:
        """Free the simulator and the policy."""
        self._close_sims()
        if "source" in self.__dict__:
            self.source.close()

    def _close_sims(self) -> None:
        for sim in self._sims.values():
            sim.close()
        self._sims.clear()

    @cached_property
    def demos(self) -> Demonstrations:
        """The demonstrations given, or those that the checkpoint was trained on, or two that are made
        once and kept in the cache folder."""
        suite, given = self.protocol.suite, self.subject.demos or self._trained_on
        options = self.subject.options or (self.training.options if self.training else {})
        if given is not None and options:
            return dataset_demos.read_dataset(given, suite, options)
        if given is not None:
            return dataset_demos.read_demonstrations(given, suite)
        assert self.backend
        folder = cache_folder("doctor") / f"{self.protocol.suite_name}-{self.subject.assets.name}"
        made = demonstrations.make_demonstrations(folder, suite, self.subject.assets, DEMO_PIXELS)
        return dataset_demos.read_demonstrations(made, suite, scripted=True)

    # -- the policy

    @cached_property
    def training(self) -> Training | None:
        """What lies beside the checkpoint about its training."""
        return None if self.folder is None else training_of(self.folder)

    @property
    def _trained_on(self) -> Path | None:
        demos = None if self.training is None else self.training.demos
        return demos if demos is not None and demos.exists() else None

    @property
    def unseen(self) -> str:
        """Why a checkpoint cannot be judged by what it does on these demonstrations; "" if it can."""
        if self.folder is None or not self.demos.scripted:
            return ""
        named = None if self.training is None else self.training.demos
        where = "" if named is None else f" ({named} is not here)"
        return f"these tasks it may never have seen: give --demos of its training{where}"

    @property
    def folder(self) -> Path | None:
        """The checkpoint folder, if the policy is one."""
        policy = self.subject.policy
        return policy.checkpoint_folder() if isinstance(policy, CheckpointConfig) else None

    @cached_property
    def config(self) -> "OpenVLAConfig":
        """What the checkpoint declares; needs no weights."""
        from invact_vla.openvla.checkpoints.config_file import read_config

        assert self.folder is not None
        return read_config(self.folder)

    @cached_property
    def source(self) -> PolicySource:
        """The policy as a rollout would load it."""
        assert self.subject.policy is not None
        return self.subject.policy.load()

    @cached_property
    def model(self) -> "OpenVLAPolicy":
        """The checkpoint's own policy object, for checks that look inside."""
        model: Any = self.source.open(None)
        return model

    @cached_property
    def answers(self) -> Answers:
        """What the policy does on frames of the demonstrations."""
        return Answers(
            self.demos, self.policy_needs, self.subject.frames, self.subject.seed,
            ask_source(self.source),
        )  # fmt: skip

    @property
    def policy_needs(self) -> tuple[str, ...]:
        """Cameras that the policy reads."""
        return tuple(self.source.open(None).needs)
