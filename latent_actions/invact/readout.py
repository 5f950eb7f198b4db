"""The action token brought down to the few directions that tell actions apart.

A token of d numbers keeps, beside the action, faint traces of the place that no contrast asks for
and that a linear probe still finds. After training its directions are ranked by their variance over
all clips against that within an action (Fisher's discriminants, the learned whitening of image
retrieval: Mikolajczyk and Matas 2007, Radenovic et al. 2018, arxiv.org/abs/1711.02512); the first k
stay, and the head is fitted again by least squares, so that embeddings stay where they were beside
the texts.

M clips, d width of the token, k numbers kept, D embedding.
"""

import logging
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from invact_vla.errors import UserError
from latent_actions.invact.clips import ClipTable
from latent_actions.invact.encoder import InvActEncoder

logger = logging.getLogger(__name__)
_BATCH = 128


@dataclass(frozen=True, kw_only=True)
class ReadoutConfig:
    """How the action token is read once training is over."""

    width: int = 0  # k, numbers of the action token that are kept; 0: all
    shrinkage: float = 0.01  # added to the variance within actions, as a share of its mean
    clips: int = 20000  # training clips it is fitted on, at most

    def __post_init__(self) -> None:
        if self.width < 0 or self.shrinkage <= 0 or self.clips < 2:
            raise ValueError("readout.width must be >= 0, shrinkage positive and clips >= 2")


def check_readout(config: ReadoutConfig, width: int, labels: np.ndarray) -> None:
    """UserError if a token of this width is not wider than the readout, or there is one action only."""
    if config.width >= width:
        raise UserError(
            f"readout.width {config.width} keeps all of an action token of {width} numbers: give "
            "less, or 0 for no readout"
        )
    if config.width and len(np.unique(labels)) < 2:
        raise UserError(
            "readout.width fits directions that tell actions apart, but the training clips show one "
            "action only: give readout.width 0"
        )


def narrow_action(
    encoder: InvActEncoder,
    table: ClipTable,
    rows: np.ndarray,
    labels: np.ndarray,
    config: ReadoutConfig,
    seed: int = 0,
) -> None:
    """Fit the readout on clips `rows` with action `labels`, int64 (M,), and put it into the encoder."""
    if len(rows) > config.clips:
        picks = np.random.default_rng([seed, 17]).permutation(len(rows))[: config.clips]
        rows, labels = rows[picks], labels[picks]
    tokens, heads = _states(encoder, table, rows)
    directions, mean = discriminants(tokens, labels, config.width, config.shrinkage)
    kept = (tokens - mean) @ directions
    padded = np.concatenate([kept, np.ones((len(kept), 1))], axis=1)
    fitted = np.linalg.lstsq(padded, heads, rcond=None)[0]
    encoder.set_readout(
        *map(_tensor, (directions.T, -mean @ directions, fitted[:-1].T, fitted[-1]))
    )
    left = 1 - (padded @ fitted - heads).var() / heads.var()
    logger.info(
        "action token: %d of %d numbers kept, %.1f %% of the embedding's variance",
        config.width, tokens.shape[1], 100 * left,
    )  # fmt: skip


def discriminants(
    x: np.ndarray, labels: np.ndarray, count: int, shrinkage: float
) -> tuple[np.ndarray, np.ndarray]:
    """x (M, d), labels (M,) -> directions (d, count) of variance 1 within a label, those of the
    largest variance over all first, and the mean (d,)."""
    mean = x.mean(axis=0)
    ids = np.unique(labels, return_inverse=True)[1]
    means = np.stack([x[ids == i].mean(axis=0) for i in range(ids.max() + 1)])
    within = (x - means[ids]).T @ (x - means[ids]) / len(x)
    within += shrinkage * np.trace(within) / len(within) * np.eye(len(within))
    whiten = np.linalg.inv(np.linalg.cholesky(within))
    _, vectors = np.linalg.eigh(whiten @ ((x - mean).T @ (x - mean) / len(x)) @ whiten.T)
    return whiten.T @ vectors[:, ::-1][:, :count], mean


@torch.no_grad()
def _states(
    encoder: InvActEncoder, table: ClipTable, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Action tokens (M, d) and the head's outputs (M, D), float64."""
    tokens: list[Tensor] = []
    for start in range(0, len(rows), _BATCH):
        clips = torch.from_numpy(np.ascontiguousarray(table.read(rows[start : start + _BATCH])))
        tokens.append(encoder.evaluated(clips).action.float().cpu())
    action = torch.cat(tokens)
    heads = encoder.head(action.to(encoder.special_tokens.device)).cpu()
    return action.double().numpy(), heads.double().numpy()


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
