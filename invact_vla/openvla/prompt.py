"""Instruction -> prompt, and ids of whole sequences, built directly and never through text.

    BOS prompt | separator | targets | EOS        labels: targets and EOS, -100 elsewhere

Source: OpenVLA (github.com/openvla/openvla); the separator is the lone word boundary (29871) that
SentencePiece puts before the original's action string.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from invact_vla.openvla.config import PROMPT
from invact_vla.openvla.model import IGNORED
from invact_vla.openvla.tokenizer import EOS, Tokenizer


def prompt_of(instruction: str, template: str = PROMPT) -> str:
    """OpenVLA's prompt: lower case, no full stop added."""
    return template.replace("{instruction}", instruction.lower())


@dataclass(frozen=True)
class SequenceBuilder:
    """Ids of prompts and training sequences for one tokenizer."""

    tokenizer: Tokenizer
    separator_id: int | None
    template: str = PROMPT

    def prompt(self, instruction: str) -> list[int]:
        """BOS, the prompt, and the separator unless the prompt ends with it."""
        ids = self.tokenizer.encode(prompt_of(instruction, self.template))
        if self.separator_id is not None and ids[-1] != self.separator_id:
            ids.append(self.separator_id)
        return ids

    def example(self, instruction: str, targets: Sequence[int]) -> tuple[list[int], list[int]]:
        """(ids, labels) of one training sequence."""
        return self.continued(self.prompt(instruction), targets)

    @staticmethod
    def continued(prompt: list[int], targets: Sequence[int]) -> tuple[list[int], list[int]]:
        """(ids, labels) of a prompt, its targets and EOS."""
        answer = [*(int(t) for t in targets), EOS]
        return prompt + answer, [IGNORED] * len(prompt) + answer


def collate(
    examples: Sequence[tuple[Sequence[int], Sequence[int]]],
    pad_token_id: int,
    multiple_of: int = 8,
    max_length: int = 2048,
) -> dict[str, Tensor]:
    """Pad (ids, labels) on the right -> input_ids, attention_mask, labels, each int64 (B, L).

    L is rounded up to a multiple, since a CPU prepares its kernels anew for each new length.
    """
    longest = max(len(ids) for ids, _ in examples)
    if longest > max_length:
        raise ValueError(f"sequence of {longest} ids, longer than {max_length}")
    length = min(-(-longest // multiple_of) * multiple_of, max_length)
    input_ids = np.full((len(examples), length), pad_token_id, np.int64)
    labels = np.full((len(examples), length), IGNORED, np.int64)
    mask = np.zeros((len(examples), length), np.int64)
    for row, (ids, targets) in enumerate(examples):
        input_ids[row, : len(ids)] = ids
        labels[row, : len(ids)] = targets
        mask[row, : len(ids)] = 1
    arrays = {"input_ids": input_ids, "attention_mask": mask, "labels": labels}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}
