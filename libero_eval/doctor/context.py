"""What the checks look at: the setup, the demonstrations, and the policy, loaded when first used."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import draccus

from invact_vla.config.yaml_text import read_yaml
from invact_vla.core.cache_folder import cache_folder
from invact_vla.core.files import read_json
from invact_vla.data.dataset import DatasetConfig
from libero_eval.doctor import demonstrations
from libero_eval.doctor.answers import Answers, ask_source
from libero_eval.doctor.demonstrations import Demonstrations
from libero_eval.doctor.finding import Finding
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
LEAST_STEPS = 100  # fewer have barely moved the weights, whatever the data
LEAST_PASSES = 0.1  # over the samples


@dataclass(frozen=True, kw_only=True)
class Training:
    """What a checkpoint's post-training left beside it; None where it does not say."""

    run: Path  # its folder
    demos: Path | None  # as its config names them, found or not
    options: dict[str, Any]  # how it read them, as far as that is not the default
    steps: int | None
    batch_size: int | None
    samples: int | None

    @property
    def barely(self) -> str:
        """In words why this is hardly a training; "" if it is one, or nothing is known."""
        if self.steps is None:
            return ""
        words = f"{self.steps} steps"
        if self.batch_size:
            words += f" of {self.batch_size} samples"
        if self.steps < LEAST_STEPS:
            return words
        if self.batch_size and self.samples:
            passes = self.steps * self.batch_size / self.samples
            if passes < LEAST_PASSES:
                return f"{words}, {passes:.2f} passes over {self.samples} samples"
        return ""


def training_of(checkpoint: Path) -> Training | None:
    """The post-training that made a checkpoint folder; None if it lies in no run folder."""
    run = checkpoint.resolve().parent
    if not ((run / "provenance.json").is_file() and (run / "config.yaml").is_file()):
        return None
    config: Any = read_yaml(run / "config.yaml")
    if not isinstance(config, dict):
        return None
    inputs = read_json(run / "provenance.json").get("inputs", {})
    summary = read_json(run / "summary.json") if (run / "summary.json").is_file() else {}
    loop, data, named = config.get("loop") or {}, config.get("data"), config.get("demos")
    if not isinstance(named, str):
        named = data.get("path") if isinstance(data, dict) else None
    named = named or (inputs.get("demos") or {}).get("path")
    demos = None
    if named:  # as seen from here, or from a folder that holds the run, where it was typed
        places = [Path(named), *(folder / named for folder in run.parents)]
        demos = next((place for place in places if place.exists()), Path(named))
    return Training(
        run=run,
        demos=demos,
        options=options_of(data),
        steps=loop.get("steps"),
        batch_size=loop.get("batch_size"),
        samples=summary.get("samples"),
    )


def options_of(data: Any) -> dict[str, Any]:
    """What a config's `data` says besides the path, without defaults."""
    usual = draccus.encode(DatasetConfig())
    stated = data if isinstance(data, dict) else {}
    return {k: v for k, v in stated.items() if k != "path" and k in usual and v != usual[k]}


@dataclass(kw_only=True)
class DiagnosticContext:
    """Who is examined, and how it would be rolled out; whatever cannot be loaded raises UserError where
    it is used."""

    policy: PolicyConfig | None  # None examines the setup alone
    protocol: Protocol
    pack: AssetPack
    # file or folder of demonstrations; None: those of its training, else made by the doctor
    demos_path: Path | None = None
    options: dict[str, Any] = field(default_factory=dict)  # how they are read, of DatasetConfig
    frames: int = 40
    seconds: float = 60.0  # of rendering, at most
    seed: int = 0
    findings: dict[str, Finding] = field(default_factory=dict)  # the answers so far, by check
    _sim: "LiberoSim | None" = None

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
        return self.pack.build()

    def sim(self, task_id: int) -> "LiberoSim":
        """A simulator of a task as OpenVLA's protocol resets it; kept until another is asked for."""
        if self._sim is None or self._sim.task_id != task_id:
            assert self.backend
            from libero_eval.env.sim import LiberoSim

            if self._sim is not None:
                self._sim.close()
            self._sim = LiberoSim(self.protocol.suite, task_id, self.assets)
        return self._sim

    def close(self) -> None:
        """Free the simulator and the policy."""
        if self._sim is not None:
            self._sim.close()
        if "source" in self.__dict__:
            self.source.close()

    @cached_property
    def demos(self) -> Demonstrations:
        """The demonstrations given, or those that the checkpoint was trained on, or two that are made
        once and kept in the cache folder."""
        suite, training = self.protocol.suite, self.training
        given, options = self.demos_path, self.options
        if training is not None:
            found = training.demos is not None and training.demos.exists()
            given = given or (training.demos if found else None)
            options = options or training.options
        if given is not None and options:
            return demonstrations.read_dataset(given, suite, options)
        if given is not None:
            return demonstrations.read_demonstrations(given, suite)
        assert self.backend
        folder = cache_folder("doctor") / f"{self.protocol.suite_name}-{self.pack.name}"
        made = demonstrations.make_demonstrations(folder, suite, self.pack, DEMO_PIXELS)
        return demonstrations.read_demonstrations(made, suite, scripted=True)

    # -- the policy

    @property
    def folder(self) -> Path | None:
        """The checkpoint folder, if the policy is one."""
        policy = self.policy
        return policy.checkpoint_folder() if isinstance(policy, CheckpointConfig) else None

    @cached_property
    def training(self) -> Training | None:
        """What lies beside the checkpoint about its training."""
        return None if self.folder is None else training_of(self.folder)

    @property
    def unseen(self) -> str:
        """Why a checkpoint cannot be judged by what it does on these demonstrations; "" if it can."""
        if self.folder is None or not self.demos.scripted:
            return ""
        named = None if self.training is None else self.training.demos
        where = "" if named is None else f" ({named} is not here)"
        return f"these tasks it may never have seen: give --demos of its training{where}"

    @cached_property
    def config(self) -> "OpenVLAConfig":
        """What the checkpoint declares; needs no weights."""
        from invact_vla.openvla.checkpoints.config_file import read_config

        assert self.folder is not None
        return read_config(self.folder)

    @cached_property
    def source(self) -> PolicySource:
        """The policy as a rollout would load it."""
        assert self.policy is not None
        return self.policy.load()

    @cached_property
    def model(self) -> "OpenVLAPolicy":
        """The checkpoint's own policy object, for checks that look inside."""
        model: Any = self.source.open(None)
        return model

    @cached_property
    def answers(self) -> Answers:
        """What the policy does on frames of the demonstrations."""
        asked = ask_source(self.source)
        return Answers(self.demos, self.policy_needs, self.frames, self.seed, asked)

    @property
    def policy_needs(self) -> tuple[str, ...]:
        """Cameras that the policy reads."""
        return tuple(self.source.open(None).needs)
