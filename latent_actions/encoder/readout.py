"""The action token projected to the few directions in which embeddings differ.

A token of d numbers keeps, beside the action, faint traces of the place that no contrast asks for
and that a linear probe still finds. After training the embeddings of the training clips, before they
are scaled to unit length, are projected to their k principal directions: the action token becomes
those k numbers, and the head puts them back where the embedding was, so texts stay beside it.

M clips, d width of the token, k numbers kept, D embedding.
"""

import logging
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from invact_vla.training.device import exact
from latent_actions.encoder.encoder import InvActEncoder
from latent_actions.encoder.inference import action_token
from latent_actions.encoder.inputs.clips import ClipTable

logger = logging.getLogger(__name__)
_BATCH = 128


@dataclass(frozen=True, kw_only=True)
class ReadoutConfig:
    """How the action token is read once training is over."""

    width: int = 0  # k, numbers of the action token that are kept; 0: all
    clips: int = 20000  # training clips whose principal directions are taken, at most

    def __post_init__(self) -> None:
        if self.width < 0 or self.clips < 2:
            raise ValueError(
                f"readout.width must be >= 0 and clips >= 2, got {self.width} and {self.clips}"
            )


@torch.no_grad()
@exact()
def project_action(
    encoder: InvActEncoder, table: ClipTable, rows: np.ndarray, config: ReadoutConfig, seed: int = 0
) -> None:
    """Fit the readout on clips `rows` of the table and put it into the encoder."""
    if len(rows) > config.clips:
        rows = rows[np.random.default_rng([seed, 17]).permutation(len(rows))[: config.clips]]
    embedded = _before_scaling(encoder, table, rows)
    mean, directions, kept = principal(embedded, config.width)
    weight, bias = encoder.head.weight.cpu().double(), encoder.head.bias.cpu().double()
    encoder.set_readout(directions @ weight, directions @ (bias - mean), directions.T, mean)
    logger.info(
        "action token: %d of %d numbers kept, %.1f %% of the embedding's variance",
        config.width, weight.shape[1], 100 * kept,
    )  # fmt: skip


def principal(x: Tensor, count: int) -> tuple[Tensor, Tensor, float]:
    """x (M, D) -> mean (D,), directions (count, D) of unit length, those of the largest variance
    first, and their share of the variance."""
    mean = x.mean(dim=0)
    variance, vectors = torch.linalg.eigh((x - mean).T @ (x - mean) / len(x))
    share = float(variance[-count:].sum() / variance.sum().clamp_min(1e-30))
    return mean, vectors.flip(1)[:, :count].T, share


def _before_scaling(encoder: InvActEncoder, table: ClipTable, rows: np.ndarray) -> Tensor:
    """The head's outputs, float64 (M, D)."""
    found: list[Tensor] = []
    for start in range(0, len(rows), _BATCH):
        clips = torch.from_numpy(np.ascontiguousarray(table.read(rows[start : start + _BATCH])))
        found.append(encoder.head(action_token(encoder, clips.to(encoder.device))).cpu().double())
    return torch.cat(found)
