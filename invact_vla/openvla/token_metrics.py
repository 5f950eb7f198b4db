"""The metrics that are watched beside the training loss.

Source: OpenVLA's training scripts (action accuracy: fraction of action tokens predicted
exactly; L1: mean distance of the decoded actions, in normalized units).
"""

import torch
from torch import Tensor

from invact_vla.openvla.action_tokens import ActionTokens
from invact_vla.openvla.config import OpenVLAConfig


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
