"""A post-trained OpenVLA checkpoint."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invact_vla.errors import UserError
from invact_vla.schema import ActionChunk, Policy
from invact_vla.training.files import hash_json, hash_tree
from libero_eval.policies.config import PolicyConfig
from libero_eval.policy_source import PolicySource, Request
from libero_eval.protocol import Protocol
from libero_eval.tasks import SUITES

if TYPE_CHECKING:
    from invact_vla.openvla.policy import OpenVLAPolicy

CONFIG = "config.json"
MODEL = "model"  # where a post-training run keeps its checkpoint


@PolicyConfig.register_subclass("checkpoint")
@dataclass(frozen=True, kw_only=True)
class CheckpointConfig(PolicyConfig):
    """A post-trained OpenVLA checkpoint folder."""

    folder: Path  # a checkpoint folder, or the post-training run that holds one
    statistics: str | None = None  # which of its action statistics; none given: the suite's

    def load(self) -> PolicySource:
        """Load the model with one torch thread, so that results do not depend on the machine's."""
        import torch

        from invact_vla.openvla.policy import OpenVLAPolicy

        torch.set_num_threads(1)
        folder = self.checkpoint_folder()
        return CheckpointSource(OpenVLAPolicy.from_pretrained(folder, self.statistics))

    def parents(self) -> dict[str, Path]:
        return {"policy": self.folder}

    def hash(self) -> str:
        """Hash of the files of the checkpoint, and of the statistics if they were chosen."""
        files = hash_tree(self.checkpoint_folder())
        return hash_json([files, self.statistics]) if self.statistics else files

    def for_protocol(self, protocol: Protocol) -> PolicyConfig:
        """With the statistics of the protocol's suite, where the checkpoint has several."""
        from invact_vla.openvla.config_file import read_config
        from invact_vla.openvla.policy import choose_statistics

        config = read_config(self.checkpoint_folder())
        protocol.check_cameras(config.invact.cameras)
        if self.statistics is not None or not config.norm_stats:
            choose_statistics(config.norm_stats, self.statistics)  # says what is missing
            return self
        key = statistics_for(protocol, sorted(config.norm_stats), self.folder)
        return self if len(config.norm_stats) == 1 else replace(self, statistics=key)

    def checkpoint_folder(self) -> Path:
        """Where the checkpoint lies; UserError if there is no such folder."""
        inside = self.folder / MODEL
        folder = inside if inside.is_dir() else self.folder
        if not folder.is_dir():
            raise UserError(f"no checkpoint folder {folder}: give that of a post-training run")
        if not (folder / CONFIG).is_file():
            raise UserError(
                f"{self.folder} holds neither {CONFIG} nor {MODEL}/{CONFIG}: expected a checkpoint "
                "folder, or a finished post-training run"
            )
        return folder


def statistics_for(protocol: Protocol, known: Sequence[str], folder: Path) -> str:
    """Which of several statistics belongs to a protocol's suite. UserError if none does, or if it
    cannot be told; then --policy.statistics says it."""
    suite = protocol.suite
    own = [key for key in known if key.removesuffix("_no_noops") == protocol.suite_name]
    if own:
        return own[0]
    listed, flag = ", ".join(known), f"--policy.statistics {known[0]}"
    if suite not in SUITES:  # a folder of own tasks: anything may be meant for it
        if len(known) > 1:
            raise UserError(f"{folder} has the statistics {listed}: choose, as with {flag}")
        return known[0]
    suites = sorted(s for s in SUITES if any(k.removesuffix("_no_noops") == s for k in known))
    if suites:
        raise UserError(
            f"{folder} was post-trained on {', '.join(suites)}, the protocol is of {suite}: choose "
            f"--protocol {suites[0]}/{protocol.name.split(',')[0]}, or, to see how far it carries, "
            f"say so with --policy.statistics {next(k for k in known if k.startswith(suites[0]))}"
        )
    if len(known) == 1 and "libero" in known[0].lower():
        return known[0]  # of several suites, as of all four
    raise UserError(
        f"{folder} has the statistics {listed}, of which none is of {suite}: its actions would be "
        f"scaled for another robot; if it was trained for this, say so with {flag}"
    )


class CheckpointSource(PolicySource):
    """One model for all episodes, which it answers together."""

    batched = True

    def __init__(self, model: "OpenVLAPolicy") -> None:
        self._model = model

    def open(self, sim: Any) -> Policy:
        return copy.copy(self._model)  # shallow: weights are shared, what an episode sets is not

    def act(self, requests: Sequence[Request]) -> list[ActionChunk]:
        return self._model.act_batch([observation for _, observation in requests])
