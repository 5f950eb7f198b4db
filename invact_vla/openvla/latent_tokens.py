"""Latent codes <-> unused rows of the padded vocabulary.

Llama-2 has 32,000 pieces and a padding id, the embedding 32,064 rows: ids 32001..32063 mean nothing
and can carry up to 63 codes without any new parameter. The checkpoint's config stores the map.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from invact_vla.core.errors import UserError
from invact_vla.openvla.checkpoints.config_file import with_latent_tokens
from invact_vla.openvla.config import OpenVLAConfig
from invact_vla.openvla.model import OpenVLA

NOISE = 0.1  # of the spread of the used rows, added to their mean


@dataclass(frozen=True)
class LatentTokens:
    """ids[code] is the vocabulary row of a code."""

    ids: tuple[int, ...]

    @classmethod
    def of(cls, config: OpenVLAConfig) -> "LatentTokens":
        """The map of a model; UserError if it was never given latent tokens."""
        if not config.invact.latent_token_ids:
            raise UserError(
                "this checkpoint has no latent tokens (invact.latent_token_ids in config.json is "
                "empty): use one that was pretrained on latent labels"
            )
        return cls(config.invact.latent_token_ids)

    def encode(self, codes: np.ndarray) -> np.ndarray:
        """(..., K) codes in [0, codebook size) -> (..., K) int64 ids."""
        codes = np.asarray(codes)
        if codes.size and (codes.min() < 0 or codes.max() >= len(self.ids)):
            raise ValueError(
                f"codes: expected [0, {len(self.ids)}), got [{codes.min()}, {codes.max()}]"
            )
        return np.asarray(self.ids, np.int64)[codes]

    def decode(self, ids: np.ndarray) -> np.ndarray:
        """(..., K) ids -> (..., K) int64 codes; -1 where an id is no latent token."""
        table = np.full(max(self.ids) + 1, -1, np.int64)
        table[list(self.ids)] = np.arange(len(self.ids))
        ids = np.asarray(ids, np.int64)
        known = (ids >= 0) & (ids < len(table))
        return np.where(known, table[np.where(known, ids, 0)], -1)


@torch.no_grad()
def give_latent_tokens(
    model: OpenVLA, codebook_size: int, seed: int, taken: Collection[int] = ()
) -> tuple[int, ...]:
    """Give the model a vocabulary row for each code that has none; returns the rows newly given.
    taken: rows of added tokens, see `with_latent_tokens`.

    Nobody ever trained the unused rows of a published checkpoint: they may be zero or whatever they
    were made with, in the embedding and in the head. A new row becomes the mean of the used ones, so
    that its logit is an average one and disturbs nothing, plus a little noise that tells the codes
    apart (after Hewitt 2021, "Initializing new word embeddings for pretrained language models").
    Equal seeds give equal rows. Raises UserError if the unused rows are too few.
    """
    known = model.config.invact.latent_token_ids
    config = with_latent_tokens(model.config, codebook_size, taken)
    given = config.invact.latent_token_ids[len(known) :]
    model.config = config
    language = model.language_model
    weights = [language.model.embed_tokens.weight]
    if not config.text_config.tie_word_embeddings:
        weights.append(language.lm_head.weight)
    generator = torch.Generator().manual_seed(seed)
    for weight in weights if given else ():
        rows = _average_rows(weight[: config.vocab_size], len(given), generator)
        weight[list(given)] = rows.to(weight.dtype)
    return given


def _average_rows(used: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(V, D) used rows -> (count, D): their mean, with noise in proportion to their spread."""
    used = used.float()
    noise = torch.randn(count, used.shape[1], generator=generator).to(used.device)
    return used.mean(0) + NOISE * used.std(0) * noise
