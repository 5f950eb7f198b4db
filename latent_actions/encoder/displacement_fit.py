"""The displacement head is fitted once the encoder is trained: embeddings stay what they were.

Windows of the training clips go through the encoder as it is, and the head learns to name the way of the
hand, or of what moves, from their patches.
"""

import logging
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from invact_vla.core.errors import UserError
from invact_vla.training.device import exact
from latent_actions.encoder.displacement import (
    NUMBERS,
    DisplacementHead,
    displacement_loss,
    flow_displacement,
)
from latent_actions.encoder.encoder import InvActEncoder
from latent_actions.encoder.inputs.augment import AugmentConfig, augment
from latent_actions.encoder.inputs.clips import ClipTable

logger = logging.getLogger(__name__)
_BATCH = 128
_FEWEST = 16  # clips with a known displacement
_WARMUP, _WEIGHT_DECAY = 20, 0.05


@dataclass(frozen=True, kw_only=True)
class DisplacementConfig:
    """Numbers beside the embedding that say where the hand went."""

    # what they say: none | hand: its way in meters, right, forward, up (needs data.hands) | flow: the
    # way of what moves in the picture, right and up in shares of its width
    target: Literal["none", "hand", "flow"] = "none"
    windows: int = 8192  # of the training clips, at most; each is kept as patches in half precision
    draws: int = 4  # windows of each clip
    min_temporal_crop: float = 0.6  # part of the clip's time that a window keeps, in [this, 1]
    steps: int = 400  # of AdamW, batches of 128 windows
    learning_rate: float = 2e-3  # largest

    def __post_init__(self) -> None:
        if min(self.windows, self.draws, self.steps) < 1 or self.learning_rate <= 0:
            raise ValueError("windows, draws, steps and learning_rate must be positive")
        if not 0 < self.min_temporal_crop <= 1:
            raise ValueError(f"min_temporal_crop must be in (0, 1], got {self.min_temporal_crop}")


def check_known(table: ClipTable, rows: np.ndarray, config: DisplacementConfig) -> None:
    """UserError where the head has too little to learn from, said before hours are spent."""
    if config.target != "hand":
        return
    if table.hand is None:
        raise UserError("displacement.target hand needs to know where hands are: --data.hands true")
    known = int(np.isfinite(table.hand[rows]).all(axis=(1, 2)).sum())
    if known < _FEWEST:
        raise UserError(
            f"displacement.target hand needs {_FEWEST} training clips whose hand poses are known, got "
            f"{known} of {len(rows)}: add annotations, or take displacement.target flow"
        )


def fit_displacement(
    encoder: InvActEncoder,
    table: ClipTable,
    rows: np.ndarray,
    config: DisplacementConfig,
    augmentation: AugmentConfig,
    seed: int = 0,
) -> None:
    """Fit the head on clips `rows` of the table and put it into the encoder, if one is asked for."""
    if config.target == "none":
        return
    rng = np.random.default_rng([seed, 23])
    drawn = np.repeat(rows, config.draws)
    drawn = drawn[rng.permutation(len(drawn))[: config.windows]]
    patches, true = _windows(encoder, table, drawn, config, augmentation, rng)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        shape = (patches.shape[1], patches.shape[2], NUMBERS[config.target])
        head = DisplacementHead(*shape).to(encoder.device)
    _learn(head, patches, true, config, rng)
    encoder.set_displacement(head)


def displacement_r2(
    encoder: InvActEncoder, table: ClipTable, rows: np.ndarray, target: str
) -> list[float]:
    """R2 of each number of the head on whole clips `rows` whose displacement is known."""
    said, true = [], []
    for start in range(0, len(rows), _BATCH):
        frames, way = table.read_with_hand(rows[start : start + _BATCH])
        said.append(encoder.embed(frames, vector="displacement"))
        pixels = encoder.prepare(torch.from_numpy(frames))
        true.append(flow_displacement(pixels).numpy() if target == "flow" else way)
    x, y = np.concatenate(said), np.concatenate(true)
    known = np.isfinite(y).all(axis=1)
    error, spread = np.square(x - y)[known].mean(axis=0), y[known].var(axis=0)
    return (1 - error / np.maximum(spread, 1e-12)).tolist()


@torch.no_grad()
def _windows(
    encoder: InvActEncoder,
    table: ClipTable,
    rows: np.ndarray,
    config: DisplacementConfig,
    augmentation: AugmentConfig,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """Patches (M, N, d) in half precision of a window of each row, and its displacement (M, m), of the M
    windows whose displacement is known."""
    patches, ways = [], []
    for start in range(0, len(rows), _BATCH):
        part = rows[start : start + _BATCH]
        frames, hand = table.read_with_hand(part, rng, config.min_temporal_crop)
        pixels = augment(frames, encoder.config.size, augmentation, rng)
        way = flow_displacement(pixels) if config.target == "flow" else torch.from_numpy(hand)
        known = way.isfinite().all(dim=1)
        if known.any():
            patches.append(encoder.uncommitted(pixels[known].to(encoder.device)).half().cpu())
            ways.append(way[known])
    return torch.cat(patches), torch.cat(ways)


@exact()
def _learn(
    head: DisplacementHead,
    patches: Tensor,
    true: Tensor,
    config: DisplacementConfig,
    rng: np.random.Generator,
) -> None:
    """AdamW with a rate that rises for a few steps and falls evenly to 0."""
    device = next(head.parameters()).device
    optimizer = torch.optim.AdamW(head.parameters(), weight_decay=_WEIGHT_DECAY)
    for step in range(config.steps):
        rate = min(1.0, (step + 1) / _WARMUP) * (1 - step / config.steps) * config.learning_rate
        optimizer.param_groups[0]["lr"] = rate
        picks = torch.from_numpy(rng.choice(len(patches), _BATCH))
        said = head(patches[picks].to(device).float())
        loss = displacement_loss(said, true[picks].to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    logger.info("displacement head: %d windows, loss %.3f", len(patches), loss.item())
