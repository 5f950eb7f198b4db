"""The InvAct encoder: tubelets, an action token and registers, plain then commit blocks, a vector.

B clips, T frames, N patch tokens on the grid (T', H', W'), R registers, S = 1 + R, d width, D
embedding. At inference the embedding needs no text and the registers are dropped.
"""

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from huggingface_hub import PyTorchModelHubMixin
from safetensors.torch import save_file
from torch import Tensor, nn

from invact_vla.core.errors import UserError
from invact_vla.core.files import atomic_folder, read_json
from invact_vla.core.hub import hub_errors
from invact_vla.core.limits import inside, read_text, some
from invact_vla.training.device import CPU, Device, exact, resolve_device
from invact_vla.untrusted.model_config import decode_config, on_meta
from invact_vla.untrusted.torch_files import check_finite, read_safetensors, stored_shapes
from latent_actions.encoder.attention import Block
from latent_actions.encoder.commit import CommitBlock
from latent_actions.encoder.displacement import DisplacementHead, Vector, vector_width
from latent_actions.encoder.embedder import TubeletEmbedder
from latent_actions.encoder.encoder_config import EncoderConfig
from latent_actions.encoder.inference import before_commitment, vectors
from latent_actions.encoder.inputs.streams import Streams, planes
from latent_actions.encoder.inputs.video_input import Video, as_clips, videos_in
from latent_actions.encoder.register_encoder import RegisterEncoder
from latent_actions.encoder.routing import Routing, RoutingAssignments
from latent_actions.published_model import fetch

FORMAT = "invact-encoder/2"
FEATURES = "features"  # folder of the frozen image model inside an encoder folder
FILES = ("config.json", "model.safetensors", "README.md", f"{FEATURES}/*")  # of a folder


@dataclass(frozen=True)
class Encoded:
    """What one forward pass gives. embedding: (B, D) fp32 of unit length; action: (B, k), the action
    token as the head reads it; token: (B, d), the same before it is projected; registers: (B, R, d);
    assignments: one per commit block; motion: (B, N) standardized |frame difference|; displacement:
    (B, m) of the displacement head (displacement.py), None without one.
    """

    embedding: Tensor
    action: Tensor
    token: Tensor
    registers: Tensor
    assignments: list[RoutingAssignments]
    motion: Tensor
    displacement: Tensor | None = None


class InvActEncoder(
    nn.Module, PyTorchModelHubMixin, library_name="invact-vla", pipeline_tag="feature-extraction",
    tags=["video", "action-retrieval", "view-invariance", "scene-invariance"],
):  # fmt: skip
    """Clip to action embedding. `commit.estimator none` makes it a plain video ViT with a class
    token.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.card = ""  # README.md of the folder: written by training, saved and pushed with it
        c, routed = config, config.commit.estimator != "none"
        self.embedder = TubeletEmbedder(
            width=c.width, frames=c.frames, size=c.size, tubelet=c.tubelet, patch=c.patch,
            streams=c.streams, stem=c.stem, fusion=c.fusion, features=c.features,
        )  # fmt: skip
        self.special_tokens = nn.Parameter(torch.empty(1, 1 + c.commit.registers, c.width))
        plain = (c.width, c.heads, c.mlp_ratio, c.kernel)
        start = c.commit.start if routed else c.depth
        self.plain_blocks = nn.ModuleList(Block(*plain) for _ in range(start))
        self.commit_blocks = nn.ModuleList(
            CommitBlock(*plain, c.commit) for _ in range(c.depth - start)
        )
        self.norm = nn.LayerNorm(c.width)
        self.action_projection = nn.Linear(c.width, c.action_dim) if c.action_dim else nn.Identity()
        self.head = nn.Linear(c.action_dim or c.width, c.embedding)
        self.register_encoder = None
        if c.has_register_encoder:
            self.register_encoder = RegisterEncoder(
                width=c.width, registers=c.commit.registers, patch=c.patch, grid=self.grid
            )
        self.apply(_initialize)
        # wide: special tokens must differ for routing to start
        nn.init.trunc_normal_(self.special_tokens, std=0.2)
        self.displacement_head = None
        if c.displacement:
            self.displacement_head = DisplacementHead(math.prod(self.grid), c.width, c.displacement)

    @property
    def grid(self) -> tuple[int, int, int]:
        """Patch tokens in time, rows, columns."""
        return self.embedder.grid

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.special_tokens.device

    @property
    def size(self) -> int:
        """Parameters that an embedding is made with: all but those of a separate register encoder."""
        unused = self.register_encoder.parameters() if self.register_encoder else ()
        return sum(p.numel() for p in self.parameters()) - sum(p.numel() for p in unused)

    def forward(self, frames: Tensor, routing: Routing | None = None) -> Encoded:
        """frames: (B, T, H, W, 3), uint8 or float in [0, 1]. Default routing: hard, without noise."""
        routing, shown = routing or Routing(), Streams(self.prepare(frames))
        motion = self.embedder.motion(shown)
        patches, special_tokens = self.plain(self.embedder(shown))
        displacement = self.displacement_head(patches) if self.displacement_head else None
        found: list[RoutingAssignments] = []
        keeps = self.config.commit.routes_once(self.training)
        for block in self.commit_blocks:
            kept = found[0] if found and keeps else None
            patches, special_tokens, chosen = block(patches, special_tokens, routing, motion, kept)
            found.append(chosen)
        token = self.norm(special_tokens[:, 0])
        action, registers = self.action_projection(token), special_tokens[:, 1:]
        if self.register_encoder:
            registers = self.register_encoder(shown.pixels, found[-1])
        embedding = F.normalize(self.head(action).float(), dim=-1)
        return Encoded(embedding, action, token, registers, found, motion, displacement)

    def prepare(self, frames: Tensor) -> Tensor:
        """Any frames -> (B, T, size, size, 3) float in [0, 1], color after color in memory
        (streams.planes); raises ValueError on a wrong T."""
        if frames.ndim != 5 or frames.shape[1] != self.config.frames or frames.shape[-1] != 3:
            raise ValueError(
                f"expected (B, {self.config.frames}, H, W, 3), got {tuple(frames.shape)}"
            )
        pixels = planes(frames)
        pixels = pixels.float().div_(255) if frames.dtype == torch.uint8 else pixels
        size = (self.config.size,) * 2
        if pixels.shape[2:4] != size:
            flat = rearrange(pixels, "b t h w c -> (b t) c h w")
            flat = F.interpolate(flat, size, mode="bilinear", align_corners=False, antialias=True)
            pixels = rearrange(flat, "(b t) c h w -> b t h w c", b=len(frames))
        return pixels

    @torch.no_grad()
    @exact()
    def uncommitted(self, frames: Tensor) -> Tensor:
        """The patches before they are committed, which the displacement head reads: (B, N, d)."""
        return before_commitment(self, frames)[0]

    def plain(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Patches and special tokens after the plain blocks, over the patches alone or all tokens."""
        special_tokens = self.special_tokens.to(patches.dtype).expand(len(patches), -1, -1)
        if self.commit_blocks and self.config.commit.pre_routing == "idle":
            for block in self.plain_blocks:
                patches = block(patches)
            return patches, special_tokens
        tokens, count = torch.cat([special_tokens, patches], dim=1), special_tokens.shape[1]
        for block in self.plain_blocks:
            tokens = block(tokens)
        return tokens[:, count:], tokens[:, :count]

    @torch.inference_mode()
    @exact()
    def embed(
        self,
        video: Video,
        batch_size: int = 64,
        clip_s: float | None = None,
        vector: Vector = "embedding",
    ) -> np.ndarray:
        """Vectors of unit length, float32: hard routing, no noise, fp32. vector: what is given of a
        clip: its embedding (D), what the displacement head says (m), or one beside the other (D + m).

        video: clips (N, T, H, W, 3) -> (N, D); one video (F, H, W, 3) of any length -> (1, D); the path
        of a video file -> (1, D), or (K, D) when cut into clips of `clip_s` seconds; a list of videos
        -> the vectors of each. All forms: video_input.as_clips. Any H and W are resized. The batch
        size does not change a clip's vector but by rounding (1e-6)."""
        if batch_size < 1:
            raise ValueError(f"batch_size must be >= 1, got {batch_size}")
        if (videos := videos_in(video)) is not None:
            return np.concatenate([self.embed(v, batch_size, clip_s, vector) for v in videos])
        clips = as_clips(video, self.config.frames, self.config.size, clip_s)
        width = vector_width(self.config.embedding, self.config.displacement, vector)
        found = [
            vectors(self, batch.to(self.device), vector).cpu().numpy()
            for batch in _batches(clips, batch_size)
        ]
        return np.concatenate([*found, np.zeros((0, width), np.float32)])

    @torch.no_grad()
    @exact()
    def committed(self, frames: np.ndarray) -> np.ndarray:
        """Special token of every patch in the last commit block: uint8 (N, T, H, W, 3) -> int64
        (N, T', H', W'), 0 = action, j = register j. Raises ValueError for an encoder without
        commitment.
        """
        if not self.commit_blocks:
            raise ValueError("this encoder has no commit blocks (estimator none)")
        found = [self.committed_places(self.evaluated(b)).cpu() for b in _batches(frames, 64)]
        return torch.cat(found).numpy()

    def committed_places(self, encoded: Encoded) -> Tensor:
        """Special token of every patch in the last commit block: int64 (B, T', H', W')."""
        return encoded.assignments[-1].used.argmax(dim=-1).unflatten(1, self.grid)

    def evaluated(self, frames: Tensor) -> Encoded:
        """One forward pass as at inference, whatever the mode: hard routing, no noise."""
        was_training = self.training
        self.eval()
        try:
            return self(frames.to(self.device), Routing(hard=True, noise=False))
        finally:
            self.train(was_training)

    def set_readout(self, projection: Tensor, offset: Tensor, head: Tensor, bias: Tensor) -> None:
        """Project the action token to k numbers, projection (k, d) token + offset (k,), and embed
        those by head (D, k) and bias (D,)."""
        self.config = replace(self.config, action_dim=len(projection))
        self.action_projection = _linear(projection, offset).to(self.device)
        self.head = _linear(head, bias).to(self.device)

    def set_displacement(self, head: DisplacementHead) -> None:
        """Put a fitted displacement head beside the embedding."""
        self.config = replace(self.config, displacement=head.out.out_features)
        self.displacement_head = head.to(self.device)

    def save_pretrained(self, folder: Path | str, **options: Any) -> str | None:
        """Write config.json, model.safetensors and the card README.md into a folder, atomically.
        options: those of huggingface_hub's ModelHubMixin."""
        with atomic_folder(Path(folder)) as temporary:
            return super().save_pretrained(temporary, **options)

    def _save_pretrained(self, folder: Path) -> None:
        if self.card:
            (folder / "README.md").write_text(self.card)
        if self.embedder.features is not None:
            self.embedder.features.save(folder / FEATURES)
        config = {"format": FORMAT, **asdict(self.config)}
        if config["features"]:  # where it lay here is of no use to others
            config["features"] = FEATURES
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        weights = {name: value.contiguous() for name, value in self.state_dict().items()}
        save_file(weights, folder / "model.safetensors")

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload the encoder with its card into "owner/name" on the Hugging Face hub; returns the
        commit's address. options: private, token, branch ... of ModelHubMixin. UserError on a refused
        login, an unknown name, no network."""
        with hub_errors(repo_id):
            return super().push_to_hub(repo_id, **options)

    @classmethod
    def from_pretrained(cls, folder: Path | str, device: Device = CPU) -> "InvActEncoder":
        """Read what save_pretrained wrote, from a folder or from "owner/name" or "owner/name@revision"
        on the hub, strictly; UserError on anything missing or left over. device: as in
        training/device.py. Instead of the mixin's reader, which would trust the file's sizes."""
        device = resolve_device(device)
        folder = fetch(str(folder), FILES)
        config = read_json(inside(folder, "config.json"))
        if not isinstance(config, dict) or config.pop("format", None) != FORMAT:
            raise UserError(
                f"{folder}/config.json is not an InvAct encoder ({FORMAT}); give an encoder folder"
            )
        weights = inside(folder, "model.safetensors")
        if not weights.is_file():
            raise UserError(f"no model.safetensors in {folder}: the encoder folder is incomplete")
        config["features"] = str(folder / FEATURES) if (folder / FEATURES).is_dir() else ""
        what = f"{folder}/config.json does not describe an encoder of this version"
        shape = decode_config(EncoderConfig, config, what)
        _check_shapes(on_meta(lambda: cls(shape), what), stored_shapes(weights), weights)
        with device:
            model = cls(shape)
        model.load_state_dict(read_safetensors(weights, device))
        check_finite(model.state_dict(), weights)
        card = inside(folder, "README.md")
        model.card = read_text(card) if card.is_file() else ""
        return model.eval()


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight.data.copy_(weight)
    layer.bias.data.copy_(bias)
    return layer


def _check_shapes(model: nn.Module, stored: dict[str, tuple[int, ...]], path: Path) -> None:
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if expected != stored:
        names = expected.keys() | stored.keys()
        wrong = sorted(name for name in names if expected.get(name) != stored.get(name))
        raise UserError(
            f"{path} does not fit its config.json: {len(wrong)} entries differ, such as {some(wrong)}"
        )


def _batches(frames: np.ndarray, batch_size: int) -> list[Tensor]:
    """uint8 (N, T, H, W, 3) cut into tensors of at most batch_size clips."""
    if frames.dtype != np.uint8:
        raise ValueError(f"expected uint8 (N, T, H, W, 3), got {frames.dtype} {frames.shape}")
    starts = range(0, len(frames), batch_size)
    parts = (frames[i : i + batch_size] for i in starts)
    return [torch.from_numpy(np.require(part, requirements=["C", "W"])) for part in parts]


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv2d):
        fan_in = module.weight[0].numel()
        nn.init.trunc_normal_(module.weight, std=fan_in**-0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
