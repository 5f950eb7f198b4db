"""Divided space-time attention (TimeSformer, Bertasius et al. 2021, arxiv.org/abs/2102.05095).

B clips, S special tokens, T' x P patch tokens (P places of a frame), d width.
"""

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from latent_actions.encoder.attention import Block, Kernel, attend, merge_heads


class DividedBlock(Block):
    """A ViT block whose patches first attend their own place over time, then their own frame.

    Special tokens skip the first step; in the second each frame reads a copy of them, and the
    copies' updates are averaged.
    """

    def __init__(
        self, width: int, heads: int, mlp_ratio: float, kernel: Kernel, places: int
    ) -> None:
        super().__init__(width, heads, mlp_ratio, kernel)
        self.places = places
        self.norm_time = nn.LayerNorm(width)
        self.time_qkv = nn.Linear(width, 3 * width)
        self.time_out = nn.Linear(width, width)

    def forward(self, tokens: Tensor, special_tokens: int = 0) -> Tensor:
        """(B, S + T' P, d), the first `special_tokens` of them special -> same."""
        extra, patches = tokens[:, :special_tokens], tokens[:, special_tokens:]
        tokens = torch.cat([extra, patches + self._over_time(patches)], dim=1)
        tokens = tokens + self._over_space(tokens, special_tokens)
        return tokens + self.mlp(self.norm_mlp(tokens))

    def _over_time(self, patches: Tensor) -> Tensor:
        """Update of the patches by their own place at other times: (B, T' P, d)."""
        columns = rearrange(patches, "b (t p) d -> (b p) t d", p=self.places)
        q, k, v = self.split_heads(self.time_qkv(self.norm_time(columns)))
        mixed = self.time_out(merge_heads(attend(q, k, v, kernel=self.kernel)))
        return rearrange(mixed, "(b p) t d -> b (t p) d", p=self.places)

    def _over_space(self, tokens: Tensor, special_tokens: int) -> Tensor:
        """Update of all tokens by their own frame: (B, S + T' P, d)."""
        clips = len(tokens)
        frames = rearrange(tokens[:, special_tokens:], "b (t p) d -> b t p d", p=self.places)
        copies = repeat(tokens[:, :special_tokens], "b s d -> b t s d", t=frames.shape[1])
        together = torch.cat([copies, frames], dim=2).flatten(0, 1)
        q, k, v = self.split_heads(self.project(together))
        mixed = self.out(merge_heads(attend(q, k, v, kernel=self.kernel)))
        mixed = mixed.unflatten(0, (clips, -1))
        shared = mixed[:, :, :special_tokens].mean(dim=1)
        return torch.cat([shared, mixed[:, :, special_tokens:].flatten(1, 2)], dim=1)
