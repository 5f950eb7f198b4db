"""What can be rolled out: a checkpoint, the scripted demonstrator, and two controls.

--policy.type checkpoint --policy.folder runs/posttrain    --policy.type demonstrator
--policy.type noop                                         --policy.type random
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import draccus
import numpy as np

from invact_vla.errors import UserError
from invact_vla.schema import ActionChunk, Observation, Policy
from invact_vla.training.files import hash_json, hash_tree

MODEL = "model"  # where a post-training run keeps its checkpoint
NOOP_ACTION = (
    0.0,
    0.0,
    0.0,
    0.0,
    0.0,
    0.0,
    -1.0,
)  # LIBERO's dummy action: hold still, gripper open


class PolicySource(Protocol):
    """A policy loaded once in a process, given to one simulator after the other."""

    def for_simulator(self, sim: Any) -> Policy:
        """The policy that will act in this simulator; only privileged ones look at it."""
        ...


@dataclass(frozen=True)
class SamePolicy:
    """A source whose policy sees observations only, so one object serves every simulator."""

    policy: Policy

    def for_simulator(self, sim: Any) -> Policy:
        return self.policy


@dataclass(frozen=True)
class PrivilegedPolicy:
    """A source whose policy reads the simulator's state: a new one for each simulator."""

    make: Callable[[Any], Policy]

    def for_simulator(self, sim: Any) -> Policy:
        return self.make(sim)


@dataclass(frozen=True, kw_only=True)
class PolicyConfig(draccus.ChoiceRegistry):
    """Which policy acts."""

    def load(self) -> PolicySource:
        """Load it in this process. Raises UserError for a folder that is no checkpoint."""
        raise NotImplementedError

    def parents(self) -> dict[str, Path]:
        """The finished stages it comes from."""
        return {}

    def hash(self) -> str:
        """Identity of the policy, in every row as `checkpoint_hash`."""
        name = self.get_choice_name(type(self))
        return hash_json({"policy": name, **draccus.encode(self)})


@PolicyConfig.register_subclass("checkpoint")
@dataclass(frozen=True, kw_only=True)
class CheckpointConfig(PolicyConfig):
    """A post-trained OpenVLA checkpoint folder."""

    folder: Path  # a checkpoint folder, or the post-training run that holds one

    def load(self) -> PolicySource:
        """Load the model with one torch thread, so that results do not depend on the machine's."""
        import torch

        from invact_vla.openvla.policy import OpenVLAPolicy

        torch.set_num_threads(1)
        return SamePolicy(OpenVLAPolicy.from_pretrained(self._checkpoint()))

    def parents(self) -> dict[str, Path]:
        return {"policy": self.folder}

    def hash(self) -> str:
        """Hash of the files of the checkpoint."""
        return hash_tree(self._checkpoint())

    def _checkpoint(self) -> Path:
        inside = self.folder / MODEL
        folder = inside if inside.is_dir() else self.folder
        if not folder.is_dir():
            raise UserError(f"no checkpoint folder {folder}: give that of a post-training run")
        return folder


@PolicyConfig.register_subclass("demonstrator")
@dataclass(frozen=True, kw_only=True)
class DemonstratorConfig(PolicyConfig):
    """The scripted expert with access to the simulator's state: an upper bound, not a policy."""

    hold_still: bool = False  # stand still in tasks without a script, instead of refusing them

    def load(self) -> PolicySource:
        from libero_eval.demonstrator import Demonstrator
        from libero_eval.demonstrator.recipes import RECIPES

        def make(sim: Any) -> Policy:
            has_script = (sim.suite, sim.task_id) in RECIPES
            return Demonstrator(sim) if has_script or not self.hold_still else NoopPolicy()

        return PrivilegedPolicy(make)


@PolicyConfig.register_subclass("noop")
@dataclass(frozen=True, kw_only=True)
class NoopConfig(PolicyConfig):
    """Holds still: what it solves, the task gives away."""

    def load(self) -> PolicySource:
        return SamePolicy(NoopPolicy())


@PolicyConfig.register_subclass("random")
@dataclass(frozen=True, kw_only=True)
class RandomConfig(PolicyConfig):
    """Uniformly random actions: a lower bound that moves."""

    chunk: int = 8  # steps that one random action is held for

    def __post_init__(self) -> None:
        if self.chunk < 1:
            raise ValueError(f"chunk must be at least 1, got {self.chunk}")

    def load(self) -> PolicySource:
        return SamePolicy(RandomPolicy(self.chunk))


class NoopPolicy:
    """Always the dummy action."""

    needs: tuple[str, ...] = ()
    chunk = 8

    def reset(self, seed: int) -> None:
        pass

    def act(self, observation: Observation) -> ActionChunk:
        return ActionChunk(np.tile(np.array(NOOP_ACTION, np.float32), (self.chunk, 1)))


class RandomPolicy:
    """One action drawn uniformly from [-1, 1]^7, held for a chunk; a function of the seed alone."""

    needs: tuple[str, ...] = ()

    def __init__(self, chunk: int = 8) -> None:
        self.chunk = chunk
        self._rng = np.random.default_rng(0)

    def reset(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def act(self, observation: Observation) -> ActionChunk:
        action = self._rng.uniform(-1, 1, size=7).astype(np.float32)
        return ActionChunk(np.tile(action, (self.chunk, 1)))
