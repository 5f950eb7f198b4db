"""The published head: each number of a chunk is one of 256 ids, decoded one after the other.

Source: OpenVLA (arxiv.org/abs/2406.09246, §3.2). Cross-entropy over ids and EOS.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor, nn

from invact_vla.openvla.heads import ActionHead, LossAndMetrics
from invact_vla.openvla.model import OpenVLA


class TokensHead(ActionHead):
    """Action tokens, autoregressive."""

    def targets(self, actions: np.ndarray) -> list[int]:
        return self.tokens.encode(actions).reshape(-1).tolist()

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor], step: int = 0) -> LossAndMetrics:
        out = model(**batch, labels_only=True)
        return out.loss, self.token_metrics(out)

    def decode(
        self, model: OpenVLA, texts: Sequence[str], pixels: Tensor | None, proprio: Tensor | None
    ) -> np.ndarray:
        count, allowed = self.chunk * self.action_dim, self.config.allowed_ids
        return self.actions_of(self.greedy_ids(model, texts, pixels, proprio, count, allowed))


HEAD = TokensHead
