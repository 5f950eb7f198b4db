"""Controls: holding still and random actions, which see nothing; the scripted expert, which sees all."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from invact_vla.core.files import hash_file, hash_json
from invact_vla.core.schema import ActionChunk, Observation
from libero_eval.env.protocol import SETTLE_ACTION
from libero_eval.policies.config import PolicyConfig
from libero_eval.policy_source import EachEpisode, PolicySource, Privileged

NOOP_ACTION = SETTLE_ACTION  # LIBERO's dummy action: hold still, gripper open


@PolicyConfig.register_subclass("noop")
@dataclass(frozen=True, kw_only=True)
class NoopConfig(PolicyConfig):
    """Holds still: what it solves, the task gives away."""

    def load(self) -> PolicySource:
        return EachEpisode(NoopPolicy)


@PolicyConfig.register_subclass("random")
@dataclass(frozen=True, kw_only=True)
class RandomPolicyConfig(PolicyConfig):
    """Uniformly random actions: a lower bound that moves."""

    chunk: int = 8  # steps that one random action is held for

    def __post_init__(self) -> None:
        if self.chunk < 1:
            raise ValueError(f"chunk must be at least 1, got {self.chunk}")

    def load(self) -> PolicySource:
        return EachEpisode(lambda: RandomPolicy(self.chunk))


@PolicyConfig.register_subclass("expert")
@dataclass(frozen=True, kw_only=True)
class DemonstratorConfig(PolicyConfig):
    """The scripted expert with access to the simulator's state: an upper bound, not a policy."""

    def load(self) -> PolicySource:
        from libero_eval.expert import Expert

        return Privileged(Expert)

    def hash(self) -> str:
        """Hash of its source: another script is another policy."""
        folder = Path(__file__).parents[1] / "expert"
        return hash_json(
            {str(p.relative_to(folder)): hash_file(p) for p in sorted(folder.rglob("*.py"))}
        )


class NoopPolicy:
    """Always the dummy action."""

    needs: tuple[str, ...] = ()
    chunk = 8

    def reset(self, seed: int) -> None:
        """Nothing to forget."""

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
