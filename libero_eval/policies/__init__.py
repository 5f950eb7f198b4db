"""What can be rolled out: a file per policy, each a member of the registry `PolicyConfig`.

--policy.type checkpoint --policy.folder runs/posttrain    --policy.type expert
--policy.type noop                                         --policy.type random
--policy.type replay --policy.folder runs/demos            --policy.type selftest
--policy.type remote --policy.url ws://127.0.0.1:8000
"""

from libero_eval.policies.checkpoint import CheckpointConfig
from libero_eval.policies.config import PolicyConfig
from libero_eval.policies.controls import (
    NOOP_ACTION,
    DemonstratorConfig,
    NoopConfig,
    NoopPolicy,
    RandomPolicy,
    RandomPolicyConfig,
)
from libero_eval.policies.remote import RemoteConfig
from libero_eval.policies.replay import ReplayConfig
from libero_eval.policies.selftest import SelftestConfig, SelftestPolicy

__all__ = [
    "NOOP_ACTION",
    "CheckpointConfig",
    "DemonstratorConfig",
    "NoopConfig",
    "NoopPolicy",
    "PolicyConfig",
    "RandomPolicy",
    "RandomPolicyConfig",
    "RemoteConfig",
    "ReplayConfig",
    "SelftestConfig",
    "SelftestPolicy",
]
