"""Actions and latent codes <-> rows of the vocabulary.

Actions in [-1, 1] are the last ids. Source: OpenVLA (arxiv.org/abs/2406.09246, §3.2), after RT-2
(arxiv.org/abs/2307.15818). `bins` edges make bins - 1 intervals, so the last two ids decode to the
same center.

Latent codes are unused rows behind it: Llama-2 has 32,000 pieces and a padding id, the embedding
32,064 rows, so ids 32001..32063 mean nothing and can carry up to 63 codes without any new parameter.
The checkpoint's config stores the map.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from invact_vla.core.errors import UserError
from invact_vla.openvla.checkpoints.config_file import with_latent_tokens
from invact_vla.openvla.config import OpenVLAConfig
from invact_vla.openvla.model import OpenVLA

NOISE = 0.1  # of the spread of the used rows, added to their mean


@dataclass(frozen=True)
class ActionTokens:
    """The scheme for one vocabulary. vocab_size: ids with a meaning, padding rows not counted."""

    vocab_size: int
    bins: int = 256

    def __post_init__(self) -> None:
        if self.bins < 2:
            raise ValueError(f"at least 2 bins are needed, got {self.bins}")

    @classmethod
    def of(cls, config: OpenVLAConfig) -> "ActionTokens":
        """The scheme of a model."""
        return cls(config.vocab_size, config.n_action_bins)

    @property
    def first_id(self) -> int:
        """Smallest action id (published: 31744); the largest is vocab_size - 1."""
        return self.vocab_size - self.bins

    @cached_property
    def edges(self) -> np.ndarray:
        """float64: with float32 edges about half of the values on an edge fall into the wrong bin."""
        return np.linspace(-1.0, 1.0, self.bins)

    def encode(self, actions: np.ndarray) -> np.ndarray:
        """(..., A) normalized actions -> (..., A) int64 ids; values outside [-1, 1] are clipped."""
        if self.first_id < 0:
            raise ValueError(f"{self.bins} action ids do not fit a vocabulary of {self.vocab_size}")
        clipped = np.clip(np.asarray(actions, np.float64), -1.0, 1.0)
        return self.vocab_size - np.digitize(clipped, self.edges).astype(np.int64)

    def decode(self, ids: np.ndarray) -> np.ndarray:
        """(..., A) ids -> (..., A) float64 bin centers; ids of no action go to the nearer end."""
        index = np.clip(self.vocab_size - np.asarray(ids, np.int64) - 1, 0, self.bins - 2)
        return ((self.edges[:-1] + self.edges[1:]) / 2.0)[index]


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
        codes, size = np.asarray(codes), len(self.ids)
        if codes.size and (codes.min() < 0 or codes.max() >= size):
            raise ValueError(f"codes: expected [0, {size}), got [{codes.min()}, {codes.max()}]")
        return np.asarray(self.ids, np.int64)[codes]

    def decode(self, ids: np.ndarray) -> np.ndarray:
        """(..., K) ids -> (..., K) int64 codes; -1 where an id is no latent token."""
        table = np.full(max(self.ids) + 2, -1, np.int64)  # the last one for ids of no row
        table[list(self.ids)] = np.arange(len(self.ids))
        ids = np.asarray(ids, np.int64)
        return table[np.where((ids >= 0) & (ids < len(table)), ids, -1)]


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
    known, language = model.config.invact.latent_token_ids, model.language_model
    model.config = config = with_latent_tokens(model.config, codebook_size, taken)
    given = config.invact.latent_token_ids[len(known) :]
    tables = [language.model.embed_tokens.weight]
    if not config.text_config.tie_word_embeddings:
        tables.append(language.lm_head.weight)
    generator = torch.Generator().manual_seed(seed)
    for table in tables if given else ():
        used = table[: config.vocab_size].float()
        noise = torch.randn(len(given), used.shape[1], generator=generator).to(used.device)
        table[list(given)] = (used.mean(0) + NOISE * used.std(0) * noise).to(table.dtype)
    return given
