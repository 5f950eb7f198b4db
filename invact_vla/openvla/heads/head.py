"""What every action head does: make a batch, compute its loss, decode a chunk.

Axis letters: B batch, n actions of a chunk, A numbers of an action, L text ids.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from invact_vla.openvla.config import OpenVLAConfig
from invact_vla.openvla.inference.generate import greedy_decode
from invact_vla.openvla.model import OpenVLA
from invact_vla.openvla.prompt import SequenceBuilder, collate


class ActionHead(ABC):
    """One head for one model. All actions here are normalized, float (..., n, A)."""

    def __init__(self, config: OpenVLAConfig, sequences: SequenceBuilder) -> None:
        self.config, self.sequences = config, sequences
        self.chunk, self.action_dim = config.invact.chunk, config.invact.action_dim
        self._prompts: dict[str, list[int]] = {}

    @abstractmethod
    def targets(self, actions: np.ndarray) -> list[int]:
        """Ids after the prompt for one chunk (n, A), EOS not among them."""

    @abstractmethod
    def loss(
        self, model: nn.Module, batch: Mapping[str, Tensor], step: int = 0
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """(loss, metrics) of a batch of `batch`, with pixel_values and proprio added to it. `model`
        may be wrapped (DDP, FSDP). A loss function of `training.loop.fit`, which tells the step."""

    @abstractmethod
    def decode(
        self,
        model: OpenVLA,
        instructions: Sequence[str],
        pixel_values: Tensor | None,
        proprio: Tensor | None,
    ) -> np.ndarray:
        """float64 (B, n, A): the chunk of each observation, decoded together."""

    def batch(self, instructions: Sequence[str], actions: np.ndarray) -> dict[str, Tensor]:
        """Texts and targets of B samples as tensors on the CPU; actions: (B, n, A)."""
        examples = [
            self.sequences.continued(self.prompt(text), self.targets(chunk))
            for text, chunk in zip(instructions, actions, strict=True)
        ]
        return collate(examples, self.config.pad_token_id)

    def prompt(self, instruction: str) -> list[int]:
        """Ids of the prompt, separator included."""
        if instruction not in self._prompts:
            self._prompts[instruction] = self.sequences.prompt(instruction)
        return self._prompts[instruction]

    def prompts(
        self, instructions: Sequence[str], device: torch.device
    ) -> tuple[Tensor, Tensor | None]:
        """Prompts as ids (B, L), padded on the right, and the mask of what is real, if any is not."""
        rows = [(ids, ids) for ids in map(self.prompt, instructions)]
        batch = collate(rows, self.config.pad_token_id, multiple_of=1)
        mask = batch["attention_mask"]
        return batch["input_ids"].to(device), None if mask.all() else mask.to(device)

    def greedy_ids(
        self,
        model: OpenVLA,
        instructions: Sequence[str],
        pixel_values: Tensor | None,
        proprio: Tensor | None,
        count: int,
        allowed: Sequence[int] | None,
    ) -> Tensor:
        """`count` ids (B, count) behind each prompt, one after the other, among the allowed ones."""
        input_ids, mask = self.prompts(instructions, model.device)
        among = None if allowed is None else torch.tensor(allowed, device=model.device)
        return greedy_decode(
            model,
            input_ids,
            count,
            pixel_values,
            attention_mask=mask,
            proprio=proprio,
            allowed=among,
        )[0]


def device_of(model: nn.Module) -> torch.device:
    """Where a model's parameters are."""
    return next(model.parameters()).device
