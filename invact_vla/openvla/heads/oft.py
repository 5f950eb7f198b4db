"""OpenVLA-OFT's head: the whole chunk from one bidirectional pass over action slots.

    BOS | patches | state token | prompt, separator | K slots | EOS

Source: OpenVLA-OFT (arxiv.org/abs/2502.19645, §IV-V). Published: a slot for each number, zero
embeddings, L1 loss on an MLP-ResNet, or (output "tokens") cross-entropy over action ids there.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from invact_vla.openvla.heads import ActionHead, LossAndMetrics
from invact_vla.openvla.model import OpenVLA
from invact_vla.openvla.tokenizer import EOS, collate
from invact_vla.training.device import place


class OftHead(ActionHead):
    """Parallel decoding."""

    @property
    def regression(self) -> bool:
        """Whether numbers are read from the slots, not ids."""
        return self.config.invact.head.output == "l1"  # type: ignore[attr-defined]

    def targets(self, actions: np.ndarray) -> list[int]:
        """Ids at the slots: what the action tokens would be, or EOS where nobody reads them."""
        if self.regression:
            return [EOS] * self.config.slots
        return self.tokens.encode(actions).reshape(-1).tolist()

    def batch(self, texts: Sequence[str], actions: np.ndarray) -> dict[str, Tensor]:
        batch = super().batch(texts, actions)
        batch["slots"] = self._slots(texts)
        if self.regression:
            del batch["labels"]
            batch["actions"] = torch.from_numpy(np.asarray(actions, np.float32))
        return batch

    def _slots(self, texts: Sequence[str]) -> Tensor:
        """(B, K): the places right behind each prompt."""
        starts = torch.tensor([len(self.prompt(text)) for text in texts])
        return starts[:, None] + torch.arange(self.config.slots)

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor], step: int = 0) -> LossAndMetrics:
        out = model(**batch)
        if not self.regression:
            return out.loss, self.token_metrics(out)
        error = (out.actions.detach().float() - batch["actions"]).abs()
        return out.loss, {"action_l1": error.mean(), "first_action_l1": error[:, 0].mean()}

    @torch.inference_mode()
    def decode(
        self, model: OpenVLA, texts: Sequence[str], pixels: Tensor | None, proprio: Tensor | None
    ) -> np.ndarray:
        rows = [self.prompt(text) + [EOS] * (self.config.slots + 1) for text in texts]
        batch = collate([(ids, ids) for ids in rows], self.config.pad_token_id, 1)
        del batch["labels"]
        batch |= {"pixel_values": pixels, "proprio": proprio, "slots": self._slots(texts)}
        out = model(**place(batch, model.device))
        if self.regression:
            return out.actions.cpu().double().numpy()
        allowed = self.config.allowed_ids or range(out.logits.shape[-1])
        ids = out.logits[..., allowed.start : allowed.stop].argmax(-1) + allowed.start
        return self.actions_of(ids)


HEAD = OftHead
