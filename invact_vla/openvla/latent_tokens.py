"""Latent codes <-> unused rows of the padded vocabulary.

Llama-2 has 32,000 pieces and a padding id, the embedding 32,064 rows: ids 32001..32063 mean nothing
and can carry up to 63 codes without any new parameter. The checkpoint's config stores the map.
"""

from dataclasses import dataclass

import numpy as np

from invact_vla.errors import UserError
from invact_vla.openvla.config import OpenVLAConfig


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
