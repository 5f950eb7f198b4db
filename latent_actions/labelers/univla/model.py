"""UniVLA's latent action model: codes of a frame pair that predict the features of its second frame.

Stage 1 also reads the instruction, so that its codes need only hold what no instruction tells: camera,
background, other people ("task-irrelevant"). Stage 2 keeps those codes, adds queries and a codebook of
its own without language, and these codes are the latent action ("task-centric").
Axis letters: B batch, N patches, D width of a feature, K codes, Q width of a code.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latent_actions.labelers.univla.blocks import Stack
from latent_actions.labelers.univla.config import UnivlaConfig
from latent_actions.labelers.vector_quantizers import Quantized, StraightThrough, vector_quantizer
from latent_actions.labelers.whitening import Whiten

TEXT_WIDTH = 768  # of a token of T5-base, as published


@dataclass(frozen=True)
class UnivlaOutput:
    """action: task-centric codes (stage 1: its only ones); context: task-irrelevant codes of stage 2;
    prediction: (B, N, D), features of the second frame."""

    action: Quantized
    context: Quantized | None
    prediction: Tensor

    def loss(self, target: Tensor, weight: Tensor | float = 1.0) -> Tensor:
        """Mean squared error of the features (B, N, D) and `weight` times the losses of the
        codebooks."""
        books = self.action.loss + (0.0 if self.context is None else self.context.loss)
        return F.mse_loss(self.prediction.float(), target.float()) + weight * books


class UnivlaModel(nn.Module):
    """One stage of the model. Features in: float (B, 2, N, D)."""

    def __init__(self, config: UnivlaConfig) -> None:
        super().__init__()
        self.config = config
        dim, wide, code = config.dino_dim, config.model_dim, config.latent_dim
        first = config.stage == 1
        self.action_latent = nn.Parameter(torch.empty(1, 1, config.num_codes, dim).uniform_(-1, 1))
        self.encoder = Stack(dim, wide, config.enc_blocks, config.num_heads, True, None)
        self.to_codebook = nn.Linear(wide, code)
        widths = [config.num_codes * code] * (config.stage if config.whiten else 0)
        self.whiten = nn.ModuleList(Whiten(width) for width in widths)
        size = config.num_latents if first else config.context_latents
        self.vq = self._quantizer(size)
        self.patch_up, self.action_up = nn.Linear(dim, wide), nn.Linear(code, wide)
        self.decoder = Stack(wide, wide, config.dec_blocks, config.num_heads, False, dim)
        if config.residual:  # the first prediction is the first frame itself
            nn.init.zeros_(self.decoder.out.weight)  # type: ignore[arg-type]
            nn.init.zeros_(self.decoder.out.bias)  # type: ignore[arg-type]
        if first:
            self.lang_proj = nn.Linear(config.text_dim, wide)
            return
        self.to_codebook_uncontrol = nn.Linear(wide, code)
        self.action_up_uncontrol = nn.Linear(code, wide)
        self.vq_action = self._quantizer(config.num_latents)
        start = torch.empty(1, 1, config.num_codes, dim).uniform_(-1, 1)
        self.action_latent_controllable = nn.Parameter(start)
        self.vq.requires_grad_(False)  # the codebook of stage 1

    def _quantizer(self, size: int) -> StraightThrough:
        config = self.config
        found = vector_quantizer("straight_through", config.num_codes, size, config.latent_dim)
        assert isinstance(found, StraightThrough)
        return found

    @property
    def action_quantizer(self) -> StraightThrough:
        """The quantizer whose codes are the latent action."""
        return self.vq if self.config.stage == 1 else self.vq_action

    def forward(
        self, features: Tensor, text: Tensor | None = None, seen: Tensor | None = None
    ) -> UnivlaOutput:
        """text: float (B, L, text_dim) of stage 1, None without instructions; seen: bool (B, L), its
        tokens that are no padding."""
        words = None if text is None else self.lang_proj(text)
        action, context = self.encode(features, words, seen)
        found = self.decode(features[:, :1], action.vectors, context, words, seen)
        return UnivlaOutput(action, context, found)

    def decode(
        self,
        first: Tensor,
        vectors: Tensor,
        context: Quantized | None,
        words: Tensor | None = None,
        seen: Tensor | None = None,
    ) -> Tensor:
        """Features of the second frame, (B, N, D), from those of the first, (B, 1, N, D), the vectors
        (B, K, Q) of the latent action and, in stage 2, the task-irrelevant codes."""
        start = first[:, 0] if self.config.residual else 0.0
        first = self.patch_up(first)
        parts = [self.action_up(vectors)[:, None], first]
        if context is not None:
            parts.insert(1, self.action_up_uncontrol(context.vectors)[:, None])
        tokens = torch.cat(parts, dim=2)
        found = self.decoder(tokens, words, self._seen(tokens, seen))
        return start + found[:, 0, tokens.shape[2] - first.shape[2] : tokens.shape[2]]

    def encode(
        self, features: Tensor, words: Tensor | None = None, seen: Tensor | None = None
    ) -> tuple[Quantized, Quantized | None]:
        """Both sets of codes of features (B, 2, N, D)."""
        queries, count = [self.action_latent], self.config.num_codes
        if self.config.stage == 2:
            queries.insert(0, self.action_latent_controllable)
        frames = features.shape[:2]
        tokens = torch.cat([*(q.expand(*frames, -1, -1) for q in queries), features], dim=2)
        found = self.encoder(tokens, words, self._seen(tokens, seen))[:, 1]
        action = self.action_quantizer(self._even(0, self.to_codebook(found[:, :count])))
        if self.config.stage == 1:
            return action, None
        other = self.to_codebook_uncontrol(found[:, count : 2 * count])
        return action, self.vq(self._even(1, other))

    def _even(self, which: int, vectors: Tensor) -> Tensor:
        if not self.config.whiten:
            return vectors
        return self.whiten[which](vectors.flatten(1)).view_as(vectors)

    @torch.no_grad()
    def codes(self, features: Tensor) -> Tensor:
        """Latent action of each pair: int64 (B, K). Deterministic."""
        return self.encode(features)[0].codes

    def take_stage_1(self, first: "UnivlaModel") -> None:
        """The codebook and the queries of stage 1, as published; all else starts fresh."""
        self.vq.load_state_dict(first.vq.state_dict())
        self.action_latent.data.copy_(first.action_latent.data)

    @staticmethod
    def _seen(tokens: Tensor, seen: Tensor | None) -> Tensor | None:
        if seen is None:
            return None
        return F.pad(seen, (tokens.shape[2], 0), value=True)
