"""The published head: each number of a chunk is one of 256 ids, decoded one after the other.

Source: OpenVLA (arxiv.org/abs/2406.09246, §3.2). Cross-entropy over ids and EOS.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from invact_vla.openvla.action_tokens import ActionTokens
from invact_vla.openvla.config import OpenVLAConfig
from invact_vla.openvla.heads.head import ActionHead
from invact_vla.openvla.model import OpenVLA
from invact_vla.openvla.prompt import SequenceBuilder
from invact_vla.openvla.token_metrics import bin_centers, token_metrics


class TokensHead(ActionHead):
    """Action tokens, autoregressive."""

    def __init__(self, config: OpenVLAConfig, sequences: SequenceBuilder) -> None:
        super().__init__(config, sequences)
        self.tokens = ActionTokens.of(config)
        self._centers = bin_centers(config)

    def targets(self, actions: np.ndarray) -> list[int]:
        return self.tokens.encode(actions).reshape(-1).tolist()

    def loss(
        self, model: nn.Module, batch: Mapping[str, Tensor], step: int = 0
    ) -> tuple[Tensor, dict[str, Tensor]]:
        out = model(**batch, labels_only=True)
        with torch.no_grad():
            return out.loss, token_metrics(out.logits, out.targets, self.config, self._centers)

    def decode(
        self,
        model: OpenVLA,
        instructions: Sequence[str],
        pixel_values: Tensor | None,
        proprio: Tensor | None,
    ) -> np.ndarray:
        allowed = None
        if self.config.invact.constrain_actions:
            allowed = range(self.tokens.first_id, self.config.vocab_size)
        count = self.chunk * self.action_dim
        ids = self.greedy_ids(model, instructions, pixel_values, proprio, count, allowed)
        chunks = rearrange(ids.cpu().numpy(), "b (n a) -> b n a", n=self.chunk)
        return self.tokens.decode(chunks)


HEAD = TokensHead
