"""OpenVLA-OFT's head: the whole chunk from one bidirectional pass over action slots.

    BOS | patches | state token | prompt, separator | K slots | EOS

Source: OpenVLA-OFT (arxiv.org/abs/2502.19645, §IV-V). Published: a slot for each number, zero
embeddings, L1 loss on an MLP-ResNet, or (output "tokens") cross-entropy over action ids there.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from invact_vla.openvla.action_tokens import ActionTokens
from invact_vla.openvla.config import OpenVLAConfig
from invact_vla.openvla.heads.head import ActionHead, device_of
from invact_vla.openvla.model import OpenVLA
from invact_vla.openvla.prompt import SequenceBuilder, collate
from invact_vla.openvla.token_metrics import bin_centers, token_metrics
from invact_vla.openvla.tokenizer import EOS
from invact_vla.training.device import place


class OftHead(ActionHead):
    """Parallel decoding."""

    def __init__(self, config: OpenVLAConfig, sequences: SequenceBuilder) -> None:
        super().__init__(config, sequences)
        self.tokens = ActionTokens.of(config)
        self._centers = bin_centers(config)
        self.regression = config.invact.head.output == "l1"  # type: ignore[attr-defined]

    def targets(self, actions: np.ndarray) -> list[int]:
        """Ids at the slots: what the action tokens would be, or EOS where nobody reads them."""
        if self.regression:
            return [EOS] * self.config.slots
        return self.tokens.encode(actions).reshape(-1).tolist()

    def batch(self, instructions: Sequence[str], actions: np.ndarray) -> dict[str, Tensor]:
        batch = super().batch(instructions, actions)
        batch["slots"] = self._slots(instructions)
        if self.regression:
            del batch["labels"]
            batch["actions"] = torch.from_numpy(np.asarray(actions, np.float32))
        return batch

    def _slots(self, instructions: Sequence[str]) -> Tensor:
        """(B, K): the places right behind each prompt."""
        starts = torch.tensor([len(self.prompt(text)) for text in instructions])
        return starts[:, None] + torch.arange(self.config.slots)

    def loss(
        self, model: nn.Module, batch: Mapping[str, Tensor], step: int = 0
    ) -> tuple[Tensor, dict[str, Tensor]]:
        out = model(**batch)
        with torch.no_grad():
            if not self.regression:
                found = token_metrics(out.logits, out.targets, self.config, self._centers)
                return out.loss, found
            error = (out.actions.float() - batch["actions"]).abs()
            return out.loss, {"action_l1": error.mean(), "first_action_l1": error[:, 0].mean()}

    @torch.inference_mode()
    def decode(
        self,
        model: OpenVLA,
        instructions: Sequence[str],
        pixel_values: Tensor | None,
        proprio: Tensor | None,
    ) -> np.ndarray:
        device = device_of(model)
        rows = [(self.prompt(t) + [EOS] * (self.config.slots + 1), []) for t in instructions]
        batch = collate([(ids, [0] * len(ids)) for ids, _ in rows], self.config.pad_token_id, 1)
        out = model(
            batch["input_ids"].to(device),
            batch["attention_mask"].to(device),
            place(pixel_values, device),
            proprio=place(proprio, device),
            slots=self._slots(instructions).to(device),
        )
        if self.regression:
            return out.actions.cpu().double().numpy()
        logits = out.logits
        if self.config.invact.constrain_actions:
            first = self.tokens.first_id
            ids = logits[..., first : self.config.vocab_size].argmax(-1) + first
        else:
            ids = logits.argmax(-1)
        chunks = rearrange(ids.cpu().numpy(), "b (n a) -> b n a", n=self.chunk)
        return self.tokens.decode(chunks)


HEAD = OftHead
