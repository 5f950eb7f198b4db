"""The training loss with the figures that are watched beside it.

Source of the figures: OpenVLA's training scripts (action accuracy: share of action tokens predicted
exactly; L1: mean distance of the decoded actions, in normalized units).
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from invact_vla.openvla.action_tokens import ActionTokens
from invact_vla.openvla.config import OpenVLAConfig

LossFn = Callable[[nn.Module, Any, int], tuple[Tensor, Mapping[str, float | Tensor]]]


def make_loss(config: OpenVLAConfig) -> LossFn:
    """The loss function for `training.loop.fit`. A batch is the keyword arguments of the model:
    input_ids, attention_mask, labels, pixel_values, and proprio where there is a state token."""
    centers = bin_centers(config)

    def loss_fn(
        model: nn.Module, batch: dict[str, Tensor], step: int
    ) -> tuple[Tensor, Mapping[str, float | Tensor]]:
        out = model(**batch, labels_only=True)
        with torch.no_grad():
            return out.loss, token_metrics(out.logits, out.targets, config, centers)

    return loss_fn


def bin_centers(config: OpenVLAConfig) -> Tensor:
    """float32 (V,): the action value that each vocabulary row decodes to."""
    ids = torch.arange(config.text_config.vocab_size).numpy()
    return torch.from_numpy(ActionTokens.of(config).decode(ids)).float()


def token_metrics(
    logits: Tensor, targets: Tensor, config: OpenVLAConfig, centers: Tensor
) -> dict[str, Tensor]:
    """logits: (M, V), targets: (M,), centers: (V,) action of each id -> accuracies over action and
    latent tokens, and action L1.

    Only what the batch has is reported: action_accuracy and action_l1, or latent_accuracy.
    """
    predicted = logits.argmax(-1)
    right = (predicted == targets).float()
    first = config.vocab_size - config.n_action_bins
    action = (targets >= first) & (targets < config.vocab_size)
    latent = torch.zeros_like(action)
    if config.invact.latent_token_ids:
        latent = torch.isin(targets, targets.new_tensor(config.invact.latent_token_ids))
    metrics: dict[str, Tensor] = {}
    if bool(action.any()):
        values = centers.to(targets.device)
        distance = (values[predicted[action]] - values[targets[action]]).abs()
        metrics["action_accuracy"] = right[action].mean()
        metrics["action_l1"] = distance.mean()
    if bool(latent.any()):
        metrics["latent_accuracy"] = right[latent].mean()
    return metrics
