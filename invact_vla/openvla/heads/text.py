"""Actions as words: integers such as "512 498 3", learned and decoded as text.

Source: VLA-0 (arxiv.org/abs/2510.13054). Cross-entropy over the text and EOS. Decoding is greedy among
the pieces that numbers are made of, so that every answer can be read; a number above the range is cut
to it, and numbers that are missing mean the middle of the range.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from torch import Tensor, nn

from invact_vla.openvla.heads import ActionHead, LossAndMetrics
from invact_vla.openvla.model import OpenVLA
from invact_vla.openvla.tokenizer import EOS


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
        values = np.full(self.chunk * self.action_dim, self.steps / 2.0)
        numbers = [int(word) for word in text.split() if word.isdigit()][: len(values)]
        values[: len(numbers)] = np.minimum(numbers, self.steps)
        return (2.0 * values / self.steps - 1.0).reshape(self.chunk, self.action_dim)

    def targets(self, actions: np.ndarray) -> list[int]:
        return self.sequences.tokenizer.encode(self.text(actions))[1:]  # without BOS

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor], step: int = 0) -> LossAndMetrics:
        out = model(**batch, labels_only=True)
        right = (out.logits.detach().argmax(-1) == out.targets).float()
        return out.loss, {"text_accuracy": right.mean()}

    @cached_property
    def _pieces(self) -> list[int]:
        """Ids that occur in numbers, and EOS."""
        encode = self.sequences.tokenizer.encode
        found = {i for number in range(self.steps + 1) for i in encode(f"{number} {number}")[1:]}
        return sorted(found | {EOS})

    def decode(
        self, model: OpenVLA, texts: Sequence[str], pixels: Tensor | None, proprio: Tensor | None
    ) -> np.ndarray:
        # at most: every digit a piece of its own, and a boundary before each number
        count = self.chunk * self.action_dim * (len(str(self.steps)) + 1) + 1
        found = self.greedy_ids(model, texts, pixels, proprio, count, self._pieces).tolist()
        answers = [ids[: ids.index(EOS)] if EOS in ids else ids for ids in found]
        return np.stack([self.read(self.sequences.tokenizer.decode(ids)) for ids in answers])


HEAD = TextHead
