"""LAQ: an inverse-dynamics encoder and a forward-dynamics decoder around four discrete codes.

A pair of frames is patched, encoded in space and time, and reduced to the difference of two small
grids; its nearest codes are the latent action. The decoder predicts the second frame from the
patches of the first (behind a stop-gradient) and the codes. LAPA, arxiv.org/abs/2410.11758.

`lapa_compat` repeats the published code, for its weights: the position generator of the temporal stack
mixes space and time, temporal attention is not causal, keys and values are not normalized, and code
channels are scrambled before the decoder. The default mends all four.

Axis letters: B batch, H W pixels, N tokens, D their width, K code positions, Q width of a code, C codes.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from einops.layers.torch import Rearrange
from torch import Tensor, nn

from latent_actions.labelers.guard.guarded import Prediction
from latent_actions.labelers.laq.blocks import GridView, RelativePositionBias, Transformer
from latent_actions.labelers.laq.config import LaqConfig, delta_convolutions
from latent_actions.labelers.vector_quantizers import (
    Quantized,
    squared_distances,
    substitute_noise,
    vector_quantizer,
)


class Bottleneck(nn.Module):
    """Delta projector, codebook and up-projection; parameter names of the published weights.

    As published, training substitutes the quantization error by noise of the same length (NSVQ: Vali
    and Backstrom, "Noise Substitution in Vector Quantization", IEEE Access 2022), so gradients need no
    straight-through; `quantizer` puts another one in its place (vector_quantizers.py)."""

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
        channels of all codes; only `lapa_compat` repeats that."""
        if self.config.lapa_compat:
            flat = rearrange(vectors, "b k q -> b (k q)")
            return self.project_out(rearrange(flat, "b (q k) -> b k q", k=self.config.code_seq_len))
        return self.project_out(vectors) + self.code_positions


@dataclass(frozen=True)
class LaqOutput:
    """All that a forward pass makes.

    first_tokens, last_tokens: (B, 1, h, w, D) after the temporal stack; quantized: see Quantized;
    reconstruction: (B, 3, H, W), the predicted second frame, not clipped."""

    first_tokens: Tensor
    last_tokens: Tensor
    quantized: Quantized
    reconstruction: Tensor


def to_video(frames: np.ndarray | Tensor, device: torch.device | None = None) -> Tensor:
    """uint8 (B, 2, H, W, 3) -> float (B, 3, 2, H, W) in [0, 1]; device: where to, None: where it is.
    Bytes travel, a quarter of what floats would."""
    if not isinstance(frames, Tensor):
        frames = torch.from_numpy(np.array(frames))  # a copy: memory maps are read-only
    return rearrange(frames.to(device), "b t h w c -> b c t h w") / 255.0


def resize(video: Tensor, size: int) -> Tensor:
    """float (B, 3, 2, H, W) -> (B, 3, 2, size, size); not proportional, as the published model."""
    if video.shape[-2:] == (size, size):
        return video
    images = rearrange(video, "b c t h w -> (b t) c h w")
    images = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
    return rearrange(images, "(b t) c h w -> b c t h w", t=2)


class LatentActionQuantizer(nn.Module):
    """The LAQ model. Video in: float (B, 3, 2, H, W) in [0, 1]."""

    def __init__(self, config: LaqConfig) -> None:
        super().__init__()
        self.config = config
        dim, patch = config.dim, config.patch_size
        pixels = 3 * patch**2
        self.spatial_rel_pos_bias = RelativePositionBias(dim, config.heads)
        self.to_patch_emb_first_frame = nn.Sequential(
            Rearrange("b c t (h p1) (w p2) -> b t h w (c p1 p2)", p1=patch, p2=patch),
            nn.LayerNorm(pixels),
            nn.Linear(pixels, dim),
            nn.LayerNorm(dim),
        )
        mended = not config.lapa_compat

        def stack(depth: int, cross: bool = False, causal: bool = False) -> Transformer:
            return Transformer(
                dim=dim, depth=depth, dim_head=config.dim_head, heads=config.heads, cross=cross,
                normalize_kv=mended, causal=causal,
            )  # fmt: skip

        self.enc_spatial_transformer = stack(config.spatial_depth)
        self.enc_temporal_transformer = stack(config.temporal_depth, causal=mended)
        self.vq = Bottleneck(config)
        self.dec_spatial_transformer = stack(config.spatial_depth, cross=True)
        self.to_pixels_first_frame = nn.Sequential(
            nn.Linear(dim, pixels),
            Rearrange("b h w (c p1 p2) -> b c (h p1) (w p2)", p1=patch, p2=patch),
        )
        if mended:
            # a pixel head from zero: the first prediction is black or, with `residual`, x1 itself
            for parameter in self.to_pixels_first_frame.parameters():
                nn.init.zeros_(parameter)

    def forward(self, video: Tensor, noise: bool = False) -> LaqOutput:
        """noise: NSVQ noise substitution, for training; otherwise the hard codes are decoded."""
        patches, bias = self.to_patch_emb_first_frame(video), self._bias()
        first, last = self._encode(patches, bias)
        quantized = self.vq(_flat(first), _flat(last), noise)
        prediction = self._decode(video[:, :, 0], patches[:, :1], quantized.vectors, bias)
        return LaqOutput(first, last, quantized, prediction)

    def _bias(self) -> Tensor:
        return self.spatial_rel_pos_bias(self.config.grid, self.config.grid)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.vq.project_in.weight.device

    @torch.no_grad()
    def quantize(self, video: Tensor) -> Quantized:
        """Latent action of each pair, see Quantized. Deterministic."""
        first, last = self._encode(self.to_patch_emb_first_frame(video), self._bias())
        return self.vq(_flat(first), _flat(last), noise=False)

    def codes(self, video: Tensor) -> Tensor:
        """Codes of each pair: int64 (B, K) in [0, C). Deterministic."""
        return self.quantize(video).codes

    @torch.no_grad()
    def predict(self, first_frame: Tensor, vectors: Tensor) -> Tensor:
        """Second frame (B, 3, H, W) from the first (B, 3, H, W) and code vectors (B, K, Q)."""
        patches = self.to_patch_emb_first_frame(rearrange(first_frame, "b c h w -> b c 1 h w"))
        return self._decode(first_frame, patches, vectors, self._bias())

    def look_up(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        codes = self.codes(self._shown(batch))
        return codes, self.vq.decode(codes)

    def predicted(self, batch: Tensor, vectors: Tensor) -> Prediction:
        first, second = self._shown(batch).unbind(dim=2)
        change = (first - second).abs().mean(dim=(1, 2, 3))
        return Prediction(first, second, self.predict(first, vectors), change)

    def _shown(self, frames: Tensor) -> Tensor:
        """uint8 (B, 2, H, W, 3) as the network sees it."""
        return resize(to_video(frames), self.config.image_size)

    def _encode(self, patches: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Patch tokens (B, 2, h, w, D) -> each frame after both stacks, (B, 1, h, w, D)."""
        side = self.config.grid
        space = GridView("space", 2, side, side)
        time = GridView("time_scrambled" if self.config.lapa_compat else "time", 2, side, side)
        tokens = rearrange(patches, "b t h w d -> (b t) (h w) d")
        tokens = self.enc_spatial_transformer(tokens, space, bias=bias)
        tokens = rearrange(tokens, "(b t) n d -> (b n) t d", t=2)
        tokens = self.enc_temporal_transformer(tokens, time)
        tokens = rearrange(tokens, "(b h w) t d -> b t h w d", h=side, w=side)
        return tokens[:, :1], tokens[:, 1:]

    def _decode(
        self, first_frame: Tensor, patches: Tensor, vectors: Tensor, bias: Tensor
    ) -> Tensor:
        queries = _flat(patches).detach()  # the one stop-gradient of the method
        view = GridView("space", 1, self.config.grid, self.config.grid)
        tokens = self.dec_spatial_transformer(queries, view, bias, self.vq.to_decoder(vectors))
        tokens = rearrange(tokens, "b (h w) d -> b h w d", h=self.config.grid)
        pixels = self.to_pixels_first_frame(tokens)
        return first_frame + pixels if self.config.residual else pixels


def _flat(tokens: Tensor) -> Tensor:
    return rearrange(tokens, "b 1 h w d -> b (h w) d")
