"""Sizes of a LAQ model, and its JSON form."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from torch import Tensor

from invact_vla.core.errors import UserError
from invact_vla.core.files import read_json
from invact_vla.core.limits import short, some
from invact_vla.data.video.display import Fit
from latent_actions.labelers.vector_quantizers import VectorQuantization

CODE_LENGTHS = (1, 2, 4, 16, 64, 256)
SIZES = (
    "dim", "quant_dim", "codebook_size", "image_size", "patch_size", "spatial_depth",
    "temporal_depth", "dim_head", "heads",
)  # fmt: skip
FLAGS = ("lapa_compat", "residual")
MAX_DEPTH, MAX_SIZE = 1024, 1 << 20
OPTIONAL_KEYS = ("lapa_compat", "residual", "quantizer", "fit")


@dataclass(frozen=True, kw_only=True)
class LaqConfig:
    """Architecture of LAQ (arxiv.org/abs/2410.11758); the defaults are the published sizes."""

    dim: int = 1024  # width of the transformers
    quant_dim: int = 32  # width of a code vector
    codebook_size: int = 8  # codes in the codebook, shared by all positions
    image_size: int = 256  # side of the square input frames, pixels
    patch_size: int = 32  # side of a patch, pixels
    spatial_depth: int = 8  # layers of the spatial encoder and of the decoder, each
    temporal_depth: int = 8  # layers of the temporal encoder
    dim_head: int = 64  # width of one attention head
    heads: int = 16  # attention heads
    code_seq_len: int = 4  # codes per pair: 1, 2, 4, 16, 64 or 256
    lapa_compat: bool = False  # true: every quirk of the published code, needed for its weights
    residual: bool = False  # true: the decoder predicts the change x2 - x1, for short trainings
    quantizer: VectorQuantization = "nsvq"  # of the codes (vector_quantizers.py); LAPA: nsvq
    fit: Fit = "crop"  # how frames come to image_size: crop | squash (LAPA: the whole, squashed)

    def __post_init__(self) -> None:
        for name in SIZES:
            size = getattr(self, name)
            if type(size) is not int or not 0 < size <= MAX_SIZE:
                raise ValueError(f"{name} must be a whole number of 1..{MAX_SIZE}, got {size}")
        if not all(isinstance(getattr(self, name), bool) for name in FLAGS):
            raise ValueError(f"{' and '.join(FLAGS)} must be true or false")
        for name, choices in (("fit", get_args(Fit)), ("quantizer", get_args(VectorQuantization))):
            if getattr(self, name) not in choices:
                found = short(str(getattr(self, name)))
                raise ValueError(f"{name} must be one of {choices}, got {found}")
        if max(self.spatial_depth, self.temporal_depth) > MAX_DEPTH:
            raise ValueError(f"depths must be at most {MAX_DEPTH}")
        if self.image_size % self.patch_size:
            sizes = f"{self.image_size} and {self.patch_size}"
            raise ValueError(f"image_size must be a multiple of patch_size, got {sizes}")
        if type(self.code_seq_len) is not int or self.code_seq_len not in CODE_LENGTHS:
            raise ValueError(f"code_seq_len must be one of {CODE_LENGTHS}, got {self.code_seq_len}")
        if self.lapa_compat and (self.residual or self.quantizer != "nsvq"):
            raise ValueError("lapa_compat: the published model has no residual, and nsvq alone")
        if delta_grid(self.grid, self.code_seq_len) != self.code_seq_len:
            raise ValueError(
                f"code_seq_len {self.code_seq_len} does not fit a {self.grid}x{self.grid} grid of "
                "patches: use 8x8 for 1, 2 or 4 codes, 16x16 for 16 or 64, 32x32 for 256"
            )

    @property
    def grid(self) -> int:
        """Patches along one side of a frame."""
        return self.image_size // self.patch_size


def delta_convolutions(code_seq_len: int) -> list[tuple[tuple[int, int], int, int]]:
    """(kernel, stride, padding) of the convolutions from the patch grid to the code grid."""
    halve = ((3, 3), 2, 1)
    second = {
        1: [((4, 4), 1, 0)], 2: [((3, 4), 1, 0)], 4: [((3, 3), 1, 0)], 16: [halve], 64: [], 256: [],
    }  # fmt: skip
    return [halve, *second[code_seq_len]]


def delta_grid(grid: int, code_seq_len: int) -> int:
    """Tokens that the delta convolutions leave of a grid x grid square of patches."""
    height = width = grid
    for kernel, stride, padding in delta_convolutions(code_seq_len):
        height = (height + 2 * padding - kernel[0]) // stride + 1
        width = (width + 2 * padding - kernel[1]) // stride + 1
    return max(height, 0) * max(width, 0)


def config_of_weights(weights: Mapping[str, Tensor], what: str) -> LaqConfig:
    """The architecture of a published state dict, by its shapes; UserError naming `what` for others.

    The number of patches leaves no trace in the shapes: 8x8, as all published models have it (16x16
    for the one stack of convolutions that fits no other)."""
    try:
        dim, pixels = weights["to_patch_emb_first_frame.2.weight"].shape
        second: Any = weights.get("vq.cnn_encoder.2.weight")
        lengths = {(4, 4): 1, (3, 4): 2, (3, 3): 4}
        length = 64 if second is None else lengths[tuple(second.shape[2:])]
        patch = math.isqrt(pixels // 3)
        return LaqConfig(
            dim=dim,
            quant_dim=weights["vq.project_in.weight"].shape[0],
            codebook_size=weights["vq.codebooks"].shape[0],
            image_size=patch * (16 if length == 64 else 8),
            patch_size=patch,
            spatial_depth=_depth(weights, "enc_spatial_transformer"),
            temporal_depth=_depth(weights, "enc_temporal_transformer"),
            dim_head=weights["enc_spatial_transformer.layers.0.1.q_scale"].shape[0],
            heads=weights["spatial_rel_pos_bias.net.2.weight"].shape[0],
            code_seq_len=length,
            lapa_compat=True,
            fit="squash",
        )
    except (LookupError, ValueError) as error:
        raise UserError(
            f"{what} holds no LAQ of LAPA's layout ({short(str(error))}): expected the state dict of "
            "laq_openx.pt"
        ) from error


def _depth(weights: Mapping[str, Tensor], stack: str) -> int:
    numbers = [name.split(".")[2] for name in weights if name.startswith(f"{stack}.layers.")]
    return 1 + max(map(int, numbers))


def read_config(path: Path, **changes: Any) -> LaqConfig:
    """Read config.json of a LAQ folder; `changes` override what the file says.

    A file of the published layout has the ten sizes and no flags: it means `lapa_compat`, whose frames
    are squashed. Missing or unknown keys and impossible sizes are a UserError that names them."""
    values = read_json(path)
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected a JSON object of sizes, got {type(values).__name__}")
    known = [field.name for field in dataclasses.fields(LaqConfig)]
    missing = [k for k in known if k not in values and k not in OPTIONAL_KEYS]
    unknown = [k for k in values if k not in known]
    if missing or unknown:
        raise UserError(
            f"{path}: missing keys {missing}, unknown keys {some(unknown) or 'none'}; known: {known}"
        )
    try:
        config = LaqConfig(**{"lapa_compat": True, **values, **changes})
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: {short(error)}") from error
    if config.lapa_compat and "fit" not in values:
        return dataclasses.replace(config, fit="squash")
    return config
