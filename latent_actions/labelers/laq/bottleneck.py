"""The bottleneck of LAQ: frame tokens -> delta -> codes, and back to decoder tokens.

As published, training substitutes the quantization error by noise of the same length (NSVQ: Vali and
Backstrom, "Noise Substitution in Vector Quantization", IEEE Access 2022), so gradients need no
straight-through; `quantizer` puts another one in its place (vector_quantizers.py).
Axis letters: B batch, K code positions, Q width of a code, C codes, D width of the transformers.
"""

import torch
from einops import rearrange
from torch import Tensor, nn

from latent_actions.labelers.laq.config import LaqConfig, delta_convolutions
from latent_actions.labelers.vector_quantizers import (
    Quantized,
    squared_distances,
    substitute_noise,
    vector_quantizer,
)


class Bottleneck(nn.Module):
    """Delta projector, codebook and up-projection; parameter names of the published weights."""

    def __init__(self, config: LaqConfig) -> None:
        super().__init__()
        self.config = config
        width = config.quant_dim
        if config.quantizer == "nsvq":
            self.codebooks = nn.Parameter(torch.randn(config.codebook_size, width))
        self.project_in = nn.Linear(config.dim, width)
        self.project_out = nn.Linear(width, config.dim)
        stack: list[nn.Module] = []
        for kernel, stride, padding in delta_convolutions(config.code_seq_len):
            stack += [nn.Conv2d(width, width, kernel, stride, padding), nn.ReLU()]
        self.cnn_encoder = nn.Sequential(*stack[:-1])
        if config.quantizer != "nsvq":
            self.quantizer = vector_quantizer(
                config.quantizer, config.code_seq_len, config.codebook_size, width
            )
        if not config.lapa_compat:
            # without it the decoder sees a set of codes and cannot tell their positions apart
            self.code_positions = nn.Parameter(torch.randn(config.code_seq_len, config.dim) * 0.5)
            self._start_wide()

    def _start_wide(self) -> None:
        """Keep the variance from tokens to delta: codes weigh as much as their positions."""
        for layer in (self.project_in, *self.cnn_encoder, self.project_out):
            if isinstance(layer, nn.Linear | nn.Conv2d):
                gain = 2**0.5 if isinstance(layer, nn.Conv2d) else 1.0
                nn.init.normal_(layer.weight, std=gain * layer.weight[0].numel() ** -0.5)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def project(self, tokens: Tensor) -> Tensor:
        """Tokens of one frame (B, N, D) -> (B, K, Q)."""
        images = rearrange(self.project_in(tokens), "b (h w) q -> b q h w", h=self.config.grid)
        return rearrange(self.cnn_encoder(images), "b q h w -> b (h w) q")

    @property
    def reseedable(self) -> Tensor | None:
        """The codebook in which dead codes may move; None: there is none."""
        if self.config.quantizer != "nsvq":
            return self.quantizer.reseedable
        return self.codebooks.data

    def look_up(self, delta: Tensor) -> Tensor:
        """Nearest code of each delta vector: (..., Q) -> int64 (...). Ties go to the lower code."""
        return squared_distances(delta, self.codebooks).argmin(dim=-1)

    def decode(self, codes: Tensor) -> Tensor:
        """Vectors of codes: int64 (B, K) -> (B, K, Q)."""
        if self.config.quantizer != "nsvq":
            return self.quantizer.decode(codes)
        return self.codebooks[codes]

    def forward(self, first: Tensor, last: Tensor, noise: bool) -> Quantized:
        """first, last: (B, N, D) tokens of the two frames. noise: NSVQ vectors instead of codes."""
        delta = self.project(last) - self.project(first)
        if self.config.quantizer != "nsvq":
            return self.quantizer(delta)
        codes = self.look_up(delta.float())
        vectors = self.codebooks[codes]
        if noise:
            vectors = substitute_noise(delta, vectors)
        return Quantized(delta, codes, vectors)

    def to_decoder(self, vectors: Tensor) -> Tensor:
        """Code vectors (B, K, Q) -> decoder tokens (B, K, D).

        The published code reads the (K, Q) buffer as (Q, K) first, so that each decoder token holds
        channels of all codes; only `lapa_compat` repeats that.
        """
        if self.config.lapa_compat:
            flat = rearrange(vectors, "b k q -> b (k q)")
            return self.project_out(rearrange(flat, "b (q k) -> b k q", k=self.config.code_seq_len))
        return self.project_out(vectors) + self.code_positions
