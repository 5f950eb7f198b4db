"""The scripted expert as a policy: an upper bound that reads the simulator's state."""

from dataclasses import dataclass
from pathlib import Path

from invact_vla.core.files import hash_file, hash_json
from libero_eval.policies.config import PolicyConfig
from libero_eval.policy_source import PolicySource, Privileged


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
