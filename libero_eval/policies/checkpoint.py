"""A post-trained OpenVLA checkpoint."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from invact_vla.core.errors import UserError
from invact_vla.core.files import hash_json, hash_tree
from invact_vla.core.schema import LIBERO_ACTIONS, ActionChunk, Policy
from libero_eval.env.protocol import Protocol
from libero_eval.env.tasks import SUITES
from libero_eval.policies.config import PolicyConfig
from libero_eval.policy_source import PolicyRequest, PolicySource

if TYPE_CHECKING:
    from invact_vla.openvla.inference.policy import OpenVLAPolicy


@PolicyConfig.register_subclass("checkpoint")
@dataclass(frozen=True, kw_only=True)
class CheckpointConfig(PolicyConfig):
    """A post-trained OpenVLA checkpoint folder."""

    folder: Path  # a checkpoint folder, or the post-training run that holds one
    statistics: str | None = None  # which of its action statistics; none given: the suite's
    published_pictures: bool = False  # bicubic, no JPEG, no crop: checkpoints not of LIBERO
    device: str = "auto"  # where it runs: auto | cpu | cuda | cuda:N | mps
    # of weights and activations: auto (bf16 on CUDA, else fp32) | fp32 | bf16 | fp16
    dtype: str = "auto"
    quantize: Literal["none", "int8"] = "none"  # int8: the language model's weights, on a CPU

    def load(self) -> PolicySource:
        """Load the model with one torch thread, so that results do not depend on the machine's."""
        import torch

        from invact_vla.openvla.inference.policy import OpenVLAPolicy

        torch.set_num_threads(1)
        folder = self.checkpoint_folder()
        policy = OpenVLAPolicy.from_pretrained(
            folder, self.statistics, device=self.device, dtype=self.dtype, quantize=self.quantize
        )
        if self.published_pictures:
            processor = policy.pretrained.processor.published()
            policy.pretrained = replace(policy.pretrained, processor=processor)
        return CheckpointSource(policy)

    def runs_on(self) -> str:
        from invact_vla.training.device import describe, resolve_device

        return f"{describe(resolve_device(self.device))}, {self._dtype()}"

    def _dtype(self) -> str:
        from invact_vla.training.device import resolve_device, resolve_dtype

        dtype = resolve_dtype(self.dtype, resolve_device(self.device))
        return str(dtype).removeprefix("torch.")

    def parents(self) -> dict[str, Path]:
        return {"policy": self.folder}

    def hash(self) -> str:
        """Hash of the files of the checkpoint, and of what was chosen beside them; in fp32 and in bf16
        it is not the same policy."""
        files, dtype = hash_tree(self.checkpoint_folder()), self._dtype()
        further = [] if dtype == "float32" else [dtype]
        further += [] if self.quantize == "none" else [self.quantize]
        further += ["published_pictures"] if self.published_pictures else []
        chosen = [self.statistics, *further] if self.statistics or further else []
        return hash_json([files, *chosen]) if chosen else files

    def for_protocol(self, protocol: Protocol) -> PolicyConfig:
        """With the statistics of the protocol's suite, where the checkpoint has several."""
        from invact_vla.openvla.checkpoints.config_file import read_config
        from invact_vla.openvla.inference.policy import select_norm_stats

        config = read_config(self.checkpoint_folder())
        protocol.check_cameras(config.invact.cameras)
        if config.invact.action_dim != len(LIBERO_ACTIONS.names):
            raise UserError(
                f"{self.folder} answers with {config.invact.action_dim} numbers, LIBERO's robot takes "
                f"{', '.join(LIBERO_ACTIONS.names)}: it was trained for another robot"
            )
        if self.statistics is not None or not config.norm_stats:
            select_norm_stats(config.norm_stats, self.statistics)  # says what is missing
            return self
        key = statistics_for(protocol, sorted(config.norm_stats), self.folder)
        return self if len(config.norm_stats) == 1 else replace(self, statistics=key)

    def checkpoint_folder(self) -> Path:
        """Where the checkpoint lies; UserError if there is none, or one of another kind."""
        from invact_vla.openvla.checkpoints.folder import checkpoint_folder

        return checkpoint_folder(self.folder)


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
    """One model for all episodes, whose requests it computes together."""

    batched = True

    def __init__(self, model: "OpenVLAPolicy") -> None:
        self._model = model

    def open(self, sim: Any) -> Policy:
        return copy.copy(self._model)  # shallow: weights are shared, what an episode sets is not

    def act(self, requests: Sequence[PolicyRequest]) -> list[ActionChunk]:
        return self._model.act_batch([observation for _, observation in requests])
