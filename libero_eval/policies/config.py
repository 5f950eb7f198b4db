"""The registry of policies: `--policy.type NAME` and the options of that one."""

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path

import draccus

from invact_vla.core.files import hash_json
from libero_eval.env.protocol import Protocol
from libero_eval.policy_source import PolicySource


@dataclass(frozen=True, kw_only=True)
class PolicyConfig(draccus.ChoiceRegistry):
    """Which policy acts."""

    @classmethod
    def default_choice_name(cls) -> str | None:
        """`--policy.folder DIR` alone means a checkpoint."""
        return "checkpoint"

    def runs_on(self) -> str | None:
        """Device and number format of its network, in words; None for a policy without one here."""
        return None

    @abstractmethod
    def load(self) -> PolicySource:
        """Load it in this process. Raises UserError for a folder that is no checkpoint."""

    def parents(self) -> dict[str, Path]:
        """The finished stages it comes from."""
        return {}

    def for_protocol(self, protocol: Protocol) -> "PolicyConfig":
        """The policy as it acts under a protocol, checked before anything runs.

        Raises UserError if it was made for other suites only, or reads a camera that is not shown.
        """
        del protocol
        return self

    def hash(self) -> str:
        """Identity of the policy, in every row as `checkpoint_hash`."""
        name = self.get_choice_name(type(self))
        return hash_json({"policy": name, **draccus.encode(self)})
