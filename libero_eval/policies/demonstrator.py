"""The scripted demonstrator as a policy: an upper bound that reads the simulator's state."""

from dataclasses import dataclass
from typing import Any

from invact_vla.schema import Policy
from libero_eval.policies.config import PolicyConfig
from libero_eval.policies.controls import NoopPolicy
from libero_eval.policy_source import PolicySource, Privileged


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

        return Privileged(make)
