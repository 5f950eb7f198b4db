"""What is trained: the encoder, the language head and the temperature, with the whole loss in one
forward.

L = L_contrast + w_vt L_vt + w_ce L_CE + w_s L_scene + w_l L_leak + L_frac + w_b L_bal + w_e H, each
weight with a ramp if wanted. With several processes embeddings and labels are gathered, so that the
loss is that of the global batch.
"""

import math
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from invact_vla.training.distributed import gather
from latent_actions.encoder.encoder import Encoded, InvActEncoder
from latent_actions.encoder.encoder_config import EncoderConfig
from latent_actions.encoder.inputs.language import LanguageHead, video_text_loss
from latent_actions.encoder.losses import (
    BatchLabels,
    ContrastConfig,
    contrastive_loss,
    scene_leakage,
    scene_loss,
)
from latent_actions.encoder.routing import Routing, action_band, diagnostics, register_balance

SMALLEST_TEMPERATURE, LARGEST_TEMPERATURE = 0.01, 0.5
TEXT_TEMPERATURE, SCENE_TEMPERATURE = 0.07, 0.1  # of the language terms, of the contrast of scenes
ACTION_BAND = (0.05, 0.35)  # fraction of a clip's patches that L_frac leaves to the action token
BALANCE_WEIGHT = 0.01  # w_b: even use of the registers
TERMS = (
    "contrast", "video_text", "verb_class", "scene", "scene_leakage", "action_fraction_loss",
    "balance", "entropy",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Terms of the loss and their weights."""

    contrast: ContrastConfig = field(default_factory=ContrastConfig)  # weight 1
    video_text: float = 0.5  # w_vt of the video-text term
    verb_class: float = 0.5  # w_ce of the verb classification term
    scene: float = 0.0  # w_s of the contrast of scenes over the registers, which gives them a task
    scene_leakage: float = 0.0  # w_l of what a linear map reads of the scene off the action token
    entropy: float = 0.0  # w_e of the mean entropy of soft routing (nats): pushes it to one-hot
    # {term: [a, b]}: its weight rises from 0 at share a of the steps to full at share b; terms:
    # contrast, video_text, verb_class, scene, scene_leakage, action_fraction_loss, balance, entropy
    ramps: dict[str, tuple[float, float]] = field(default_factory=dict)  # see above

    def __post_init__(self) -> None:
        if min(self.weights(1.0).values()) < 0:
            raise ValueError("loss weights must be >= 0")
        if self.scene_leakage and not self.scene:
            raise ValueError(
                "loss.scene_leakage asks what the action token says of the scene vectors that "
                "loss.scene teaches: give loss.scene a weight, such as 0.1"
            )
        for name, (start, full) in self.ramps.items():
            if name not in TERMS or not 0 <= start <= full <= 1:
                raise ValueError(
                    f"a ramp is {{term: [a, b]}} with 0 <= a <= b <= 1 and a term among {TERMS}, "
                    f"got {name}: [{start}, {full}]"
                )

    def weights(self, progress: float) -> dict[str, float]:
        """Weight of each term when a share `progress` in [0, 1] of the steps is done."""
        full = {
            "contrast": 1.0, "video_text": self.video_text, "verb_class": self.verb_class,
            "scene": self.scene, "scene_leakage": self.scene_leakage, "action_fraction_loss": 1.0,
            "balance": BALANCE_WEIGHT, "entropy": self.entropy,
        }  # fmt: skip
        return {name: value * self._ramp(name, progress) for name, value in full.items()}

    def _ramp(self, name: str, progress: float) -> float:
        start, full = self.ramps.get(name, (0.0, 0.0))
        if progress >= full:
            return 1.0
        return 0.0 if progress <= start else (progress - start) / (full - start)


@dataclass(frozen=True)
class Batch:
    """pixels: (B, T, S, S, 3) float in [0, 1]; items; verb_class: int64 (B,) index among the train
    verbs, -1 for a rare verb; text: (B, F) features of each clip's text.
    """

    pixels: Tensor
    items: BatchLabels
    verb_class: Tensor
    text: Tensor

    def to(self, device: torch.device, non_blocking: bool = False) -> "Batch":
        """The batch on another device."""
        move = partial(torch.Tensor.to, device=device, non_blocking=non_blocking)
        labels = (move(self.verb_class), move(self.text))
        return Batch(move(self.pixels), self.items.map(move), *labels)


class InvActModel(nn.Module):
    """Encoder, language head and learnable temperature."""

    def __init__(self, encoder: EncoderConfig, loss: LossConfig, verbs: tuple[str, ...]) -> None:
        super().__init__()
        self.loss_config = loss
        self.encoder = InvActEncoder(encoder)
        self.language = LanguageHead(verbs, encoder.embedding)
        # of the registers' mean, where it is taught
        taught = loss.scene > 0 and encoder.registers_trainable
        self.scene = nn.Linear(encoder.width, encoder.embedding) if taught else None
        # one entry, not a scalar: FSDP shards no scalars
        start = torch.tensor([math.log(loss.contrast.temperature)])
        self.log_temperature = nn.Parameter(start)

    def forward(
        self, batch: Batch, routing: Routing, progress: float = 1.0
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Total loss and what to log; progress: share of the steps done, for the ramps."""
        encoded = self.encoder(batch.pixels, routing)
        with torch.autocast(batch.pixels.device.type, enabled=False):
            items = batch.items.gathered()
            terms, extra = self._label_terms(gather(encoded.embedding), items, batch)
            if self.scene is not None:
                terms |= self._scene_terms(self.scene, encoded, items)
            terms |= self._routing_terms(encoded)
            weights = self.loss_config.weights(progress)
            total = torch.stack([weights[name] * value for name, value in terms.items()]).sum()
        metrics = {**terms, **extra, **diagnostics(encoded.assignments, encoded.motion)}
        return total, {name: value.detach() for name, value in metrics.items()}

    def _label_terms(
        self, z: Tensor, items: BatchLabels, batch: Batch
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Terms of z, in fp32: of the global batch, whose embeddings are z (B, D)."""
        verb_class, text = gather(batch.verb_class), gather(batch.text)
        temperature = self.temperature()
        contrast, skipped = contrastive_loss(z, items, temperature, self.loss_config.contrast)
        logits = self.language.classify(z, TEXT_TEMPERATURE)
        known = verb_class >= 0
        count = known.sum().clamp_min(1)  # of no known verb the cross-entropy is 0, not NaN
        class_loss = F.cross_entropy(logits[known], verb_class[known], reduction="sum") / count
        kept = slice(None) if items.time_reversed is None else ~items.time_reversed
        words, verb = self.language(text[kept]), items.verb[kept]
        text_loss = video_text_loss(z[kept], words, verb, TEXT_TEMPERATURE)
        right = (logits.argmax(dim=-1) == verb_class).sum() / count
        terms = {"contrast": contrast, "video_text": text_loss, "verb_class": class_loss}
        return terms, {
            "skipped_anchors": skipped, "temperature": temperature, "verb_accuracy": right,
        }  # fmt: skip

    def _scene_terms(
        self, head: nn.Linear, encoded: Encoded, items: BatchLabels
    ) -> dict[str, Tensor]:
        """The contrast of scenes over the mean register, and what the action token says of it."""
        vectors = head(encoded.registers.float().mean(dim=1))
        vectors = gather(F.normalize(vectors, dim=-1))
        contrast = scene_loss(vectors, items, SCENE_TEMPERATURE)
        action = gather(encoded.action.float())
        return {"scene": contrast, "scene_leakage": scene_leakage(action, vectors, items)}

    def _routing_terms(self, encoded: Encoded) -> dict[str, Tensor]:
        """Regularizers of the routing, averaged over the commit blocks; none without commitment."""
        each: dict[str, list[Tensor]] = {"action_fraction_loss": [], "balance": [], "entropy": []}
        for chosen in encoded.assignments:
            soft = chosen.soft
            each["action_fraction_loss"].append(action_band(soft, *ACTION_BAND))
            each["balance"].append(register_balance(chosen))
            each["entropy"].append(-(soft * soft.clamp_min(1e-9).log()).sum(dim=-1).mean())
        return {name: torch.stack(values).mean() for name, values in each.items() if values}

    def temperature(self) -> Tensor:
        """The contrastive temperature, a scalar in its bounds."""
        return self.log_temperature.exp().clamp(SMALLEST_TEMPERATURE, LARGEST_TEMPERATURE)[0]


def checkpoint_blocks(encoder: InvActEncoder) -> None:
    """Keep no activations inside the encoder's blocks: the backward pass computes them again, with
    the same random numbers. Names and values of weights stay."""
    for block in (*encoder.plain_blocks, *encoder.commit_blocks):
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
