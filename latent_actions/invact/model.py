"""What is trained: the encoder, the language head and the temperature, with the whole loss in one
forward.

L = L_contrast + w_vt L_vt + w_ce L_CE + w_f L_frac + w_b L_bal.
"""

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latent_actions.invact.encoder import Encoded, EncoderConfig, InvActEncoder
from latent_actions.invact.language import LanguageHead, video_text_loss
from latent_actions.invact.losses import ContrastConfig, Items, contrastive_loss
from latent_actions.invact.routing import Routing, action_band, diagnostics, register_balance

SMALLEST_TEMPERATURE, LARGEST_TEMPERATURE = 0.01, 0.5


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Terms of the loss and their weights."""

    contrast: ContrastConfig = field(
        default_factory=ContrastConfig
    )  # scene-aware contrastive term, weight 1
    video_text: float = 0.5  # w_vt of the video-text term
    verb_class: float = 0.5  # w_ce of the verb classification term
    text_temperature: float = 0.07  # of both language terms
    band_weight: float = 1.0  # w_f: action share of a clip outside the band
    band_low: float = 0.05  # lower end of the band
    band_high: float = 0.35  # upper end of the band
    balance: float = 0.01  # w_b: even use of the registers
    entropy: float = (
        0.0  # weight of the rows' mean entropy (nats): pushes soft rows towards one-hot
    )

    def __post_init__(self) -> None:
        weights = (self.video_text, self.verb_class, self.band_weight, self.balance, self.entropy)
        if min(weights) < 0 or self.text_temperature <= 0:
            raise ValueError("loss weights must be >= 0 and text_temperature positive")
        if not 0 <= self.band_low <= self.band_high <= 1:
            raise ValueError(
                f"expected 0 <= band_low <= band_high <= 1, got {self.band_low}, {self.band_high}"
            )


@dataclass(frozen=True)
class Batch:
    """pixels: (B, T, S, S, 3) float in [0, 1]; items; verb_class: int64 (B,) index among the train
    verbs, -1 for a rare verb; text: (B, F) features of each clip's text.
    """

    pixels: Tensor
    items: Items
    verb_class: Tensor
    text: Tensor


class InvActModel(nn.Module):
    """Encoder, language head and learnable temperature."""

    def __init__(self, encoder: EncoderConfig, loss: LossConfig, verbs: tuple[str, ...]) -> None:
        super().__init__()
        self.loss_config = loss
        self.encoder = InvActEncoder(encoder)
        self.language = LanguageHead(verbs, encoder.embedding)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(loss.contrast.temperature)))

    def forward(self, batch: Batch, routing: Routing) -> tuple[Tensor, dict[str, Tensor]]:
        """Total loss and what to log."""
        encoded = self.encoder(batch.pixels, routing)
        with torch.autocast(batch.pixels.device.type, enabled=False):
            return self.loss(encoded, batch)

    def loss(self, encoded: Encoded, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """All terms, in fp32."""
        config, z = self.loss_config, encoded.embedding
        temperature = self.log_temperature.exp().clamp(SMALLEST_TEMPERATURE, LARGEST_TEMPERATURE)
        contrast, skipped = contrastive_loss(z, batch.items, temperature, config.contrast)
        logits = self.language.classify(z, config.text_temperature)
        known = batch.verb_class >= 0
        # of no known verb the cross-entropy is 0, not NaN
        class_loss = F.cross_entropy(
            logits[known], batch.verb_class[known], reduction="sum"
        ) / known.sum().clamp_min(1)
        text_loss = video_text_loss(
            z, self.language(batch.text), batch.items.verb, config.text_temperature
        )
        total = contrast + config.video_text * text_loss + config.verb_class * class_loss
        metrics = {
            "contrast": contrast, "skipped_anchors": skipped, "video_text": text_loss,
            "verb_class": class_loss, "temperature": temperature,
            "verb_accuracy": (logits.argmax(dim=-1) == batch.verb_class)[known].float().mean(),
        }  # fmt: skip
        if encoded.rows:
            routing_loss = self._routing_loss(encoded)
            total, metrics["routing"] = total + routing_loss, routing_loss
        metrics |= diagnostics(encoded.rows, encoded.motion)
        return total, {name: value.detach() for name, value in metrics.items()}

    def _routing_loss(self, encoded: Encoded) -> Tensor:
        """Regularisers of the rows, averaged over the commit blocks."""
        config = self.loss_config
        terms = []
        for rows in encoded.rows:
            soft = rows.soft
            entropy = -(soft * soft.clamp_min(1e-9).log()).sum(dim=-1).mean()
            band = action_band(soft, config.band_low, config.band_high)
            terms.append(
                config.band_weight * band
                + config.balance * register_balance(rows)
                + config.entropy * entropy
            )
        return torch.stack(terms).mean()
