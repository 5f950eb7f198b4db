"""Actions as words: integers such as "512 498 3", learned and decoded as text.

Source: VLA-0 (arxiv.org/abs/2510.13054). Cross-entropy over the text and EOS. Decoding is greedy among
the pieces that numbers are made of, so that every answer can be read; a number above the range is cut
to it, and numbers that are missing mean the middle of the range.
"""

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from torch import Tensor, nn

from invact_vla.openvla.heads.head import ActionHead
from invact_vla.openvla.model import OpenVLA
from invact_vla.openvla.tokenizer import EOS

logger = logging.getLogger(__name__)


class TextHead(ActionHead):
    """Integers 0..steps over the normalized range [-1, 1], separated by spaces."""

    @property
    def steps(self) -> int:
        """The largest integer."""
        return self.config.invact.head.steps  # type: ignore[attr-defined]

    def text(self, actions: np.ndarray) -> str:
        """A chunk (n, A) in words."""
        unit = (np.clip(np.asarray(actions, np.float64), -1.0, 1.0) + 1.0) / 2.0
        return " ".join(str(int(i)) for i in np.rint(unit * self.steps).reshape(-1))

    def read(self, text: str) -> np.ndarray:
        """Words -> (n, A) in [-1, 1]. What is no number is passed over."""
        count = self.chunk * self.action_dim
        numbers = [int(word) for word in text.split() if word.isdigit()][:count]
        if len(numbers) < count:
            logger.debug("%d of %d numbers in %r", len(numbers), count, text)
        values = np.full(count, self.steps / 2.0)
        values[: len(numbers)] = np.minimum(numbers, self.steps)
        return (2.0 * values / self.steps - 1.0).reshape(self.chunk, self.action_dim)

    def targets(self, actions: np.ndarray) -> list[int]:
        return self.sequences.tokenizer.encode(self.text(actions))[1:]  # without BOS

    def loss(
        self, model: nn.Module, batch: Mapping[str, Tensor], step: int = 0
    ) -> tuple[Tensor, dict[str, Tensor]]:
        out = model(**batch, labels_only=True)
        right = (out.logits.detach().argmax(-1) == out.targets).float()
        return out.loss, {"text_accuracy": right.mean()}

    @cached_property
    def _pieces(self) -> list[int]:
        """Ids that occur in numbers, and EOS."""
        encode = self.sequences.tokenizer.encode
        found = {i for number in range(self.steps + 1) for i in encode(f"{number} {number}")[1:]}
        return sorted(found | {EOS})

    @property
    def _most_ids(self) -> int:
        """Ids of the longest answer: every digit a piece of its own, and a boundary before it."""
        return self.chunk * self.action_dim * (len(str(self.steps)) + 1) + 1

    def decode(
        self,
        model: OpenVLA,
        instructions: Sequence[str],
        pixel_values: Tensor | None,
        proprio: Tensor | None,
    ) -> np.ndarray:
        count = self._most_ids
        ids = self.greedy_ids(model, instructions, pixel_values, proprio, count, self._pieces)
        return np.stack([self.read(self._until_eos(row)) for row in ids.tolist()])

    def _until_eos(self, ids: list[int]) -> str:
        end = ids.index(EOS) if EOS in ids else len(ids)
        return self.sequences.tokenizer.decode(ids[:end])


HEAD = TextHead
