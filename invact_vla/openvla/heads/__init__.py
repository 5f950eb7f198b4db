"""Action heads behind one interface: how a chunk of actions is taught to, and read from, an OpenVLA.

A new head: a config in `config.py`, and a file here with the name of its type that ends with
`HEAD = TheClass`. Axis letters: B batch, n actions of a chunk, A numbers of an action, L text ids.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cache, cached_property

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from invact_vla.openvla.checkpoints.checkpoint import VLACheckpoint
from invact_vla.openvla.config import HeadConfig, OpenVLAConfig
from invact_vla.openvla.inference.generate import greedy_decode
from invact_vla.openvla.model import OpenVLA, OpenVLAOutput
from invact_vla.openvla.tokenizer import SequenceBuilder, collate
from invact_vla.openvla.vocabulary import ActionTokens

LossAndMetrics = tuple[Tensor, dict[str, Tensor]]


def action_head(pretrained: VLACheckpoint) -> "ActionHead":
    """The head that a checkpoint's config names."""
    name = HeadConfig.get_choice_name(type(pretrained.config.invact.head))
    module = importlib.import_module(f"{__name__}.{name}")
    return module.HEAD(pretrained.config, pretrained.sequences)


class ActionHead(ABC):
    """One head for one model. All actions here are normalized, float (..., n, A)."""

    def __init__(self, config: OpenVLAConfig, sequences: SequenceBuilder) -> None:
        self.config, self.sequences = config, sequences
        self.chunk, self.action_dim = config.invact.chunk, config.invact.action_dim

    @abstractmethod
    def targets(self, actions: np.ndarray) -> list[int]:
        """Ids after the prompt for one chunk (n, A), EOS not among them."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Mapping[str, Tensor], step: int = 0) -> LossAndMetrics:
        """(loss, metrics) of a batch of `batch`, with pixel_values and proprio added to it. `model`
        may be wrapped (DDP, FSDP). A loss function of `training.loop.fit`, which tells the step."""

    @abstractmethod
    def decode(
        self, model: OpenVLA, texts: Sequence[str], pixels: Tensor | None, proprio: Tensor | None
    ) -> np.ndarray:
        """float64 (B, n, A): the chunk of each observation, decoded together. texts: instructions;
        pixels: pixel_values of the model."""

    @cached_property
    def prompt(self) -> Callable[[str], list[int]]:
        """Instruction -> ids of its prompt, separator included; each is made once."""
        return cache(self.sequences.prompt)

    def batch(self, texts: Sequence[str], actions: np.ndarray) -> dict[str, Tensor]:
        """Texts and targets of B samples as tensors on the CPU; actions: (B, n, A)."""
        examples = [
            self.sequences.continued(self.prompt(text), self.targets(chunk))
            for text, chunk in zip(texts, actions, strict=True)
        ]
        return collate(examples, self.config.pad_token_id)

    def greedy_ids(
        self, model: OpenVLA, texts: Sequence[str], pixels: Tensor | None, proprio: Tensor | None,
        count: int, allowed: Sequence[int] | None,
    ) -> Tensor:  # fmt: skip
        """`count` ids (B, count) behind each prompt, one after the other, among the allowed ones."""
        ids, mask = self.prompts(texts)
        return greedy_decode(
            model, ids, count, pixels, attention_mask=mask, proprio=proprio, allowed=allowed
        )[0]

    def prompts(self, texts: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        """Prompts as ids (B, L), padded on the right, and the mask of what is real, if any is not."""
        rows = [(ids, ids) for ids in map(self.prompt, texts)]
        batch = collate(rows, self.config.pad_token_id, multiple_of=1)
        mask = batch["attention_mask"]
        return batch["input_ids"], None if mask.all() else mask

    @cached_property
    def tokens(self) -> ActionTokens:
        """The action ids of the model's vocabulary."""
        return ActionTokens.of(self.config)

    def actions_of(self, ids: Tensor) -> np.ndarray:
        """(B, n A) action ids -> float64 (B, n, A)."""
        return self.tokens.decode(rearrange(ids.cpu().numpy(), "b (n a) -> b n a", n=self.chunk))

    @cached_property
    def _values(self) -> Tensor:
        """float32 (V,): the action value that each vocabulary row decodes to."""
        return torch.from_numpy(
            self.tokens.decode(np.arange(self.config.text_config.vocab_size))
        ).float()

    @torch.no_grad()
    def token_metrics(self, out: OpenVLAOutput) -> dict[str, Tensor]:
        """What is watched beside the loss over ids, of what the batch has: action_accuracy (fraction of
        action tokens predicted exactly) and action_l1 (mean distance of the decoded numbers, in
        normalized units), as in OpenVLA's training scripts; latent_accuracy."""
        logits, targets = out.logits, out.targets
        assert logits is not None and targets is not None
        predicted, own = logits.argmax(-1), self.config.invact
        right = (predicted == targets).float()
        action = (targets >= self.tokens.first_id) & (targets < self.config.vocab_size)
        metrics: dict[str, Tensor] = {}
        if bool(action.any()):
            values = self._values.to(targets.device)
            distance = (values[predicted[action]] - values[targets[action]]).abs()
            metrics |= {"action_accuracy": right[action].mean(), "action_l1": distance.mean()}
        latent = torch.isin(targets, targets.new_tensor(own.latent_token_ids))
        if bool(latent.any()):
            metrics["latent_accuracy"] = right[latent].mean()
        return metrics
