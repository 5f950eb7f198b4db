"""Sizes of UniVLA's latent action model, and its JSON form."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from invact_vla.core.errors import UserError
from invact_vla.core.files import read_json
from invact_vla.core.limits import short, some

MAX_SIZE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class UnivlaConfig:
    """Architecture; the defaults are the published sizes."""

    model_dim: int = 768  # width of the transformers
    latent_dim: int = 128  # width of a code
    num_latents: int = 16  # codes in the codebook of the latent action
    context_latents: int = 16  # codes in the codebook of stage 1, which stage 2 keeps
    num_codes: int = 4  # codes per pair
    enc_blocks: int = 12  # blocks of the encoder
    dec_blocks: int = 12  # blocks of the decoder
    num_heads: int = 12  # attention heads
    dino_dim: int = 768  # width of a feature (DINOv2 ViT-B/14)
    text_dim: int = 768  # width of an instruction's token (T5-base); stage 1
    stage: int = 2  # 1: task-irrelevant, with language; 2: task-centric
    # decorrelate what the codes are cut from (see Whiten); not published: without it trainings end with
    # one or two codes per position, or with positions that repeat each other
    whiten: bool = False
    residual: bool = (
        False  # true: the decoder predicts the change of the features; not published either
    )

    def __post_init__(self) -> None:
        if not isinstance(self.whiten, bool) or not isinstance(self.residual, bool):
            raise ValueError("whiten and residual must be true or false")
        for field in dataclasses.fields(self):
            if field.name in ("whiten", "residual"):
                continue
            size = getattr(self, field.name)
            if type(size) is not int or not 0 < size <= MAX_SIZE:
                raise ValueError(
                    f"{field.name} must be a whole number of 1..{MAX_SIZE}, got {short(str(size))}"
                )
        if self.stage not in (1, 2) or max(self.enc_blocks, self.dec_blocks) > 1024:
            raise ValueError("stage must be 1 or 2, and blocks at most 1024")
        if self.model_dim % self.num_heads or self.model_dim % 2:
            raise ValueError(
                f"model_dim {self.model_dim} must be even and a multiple of num_heads {self.num_heads}"
            )


def read_univla_config(path: Path) -> UnivlaConfig:
    """Read config.json; UserError for missing, unknown or impossible sizes. `published`, a note on the
    published sizes, is passed over."""
    values = read_json(path)
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected a JSON object of sizes, got {type(values).__name__}")
    values = {k: v for k, v in values.items() if k != "published"}
    known = [field.name for field in dataclasses.fields(UnivlaConfig)]
    unknown = [k for k in values if k not in known]
    if unknown:
        raise UserError(f"{path}: unknown keys {some(unknown)}; known: {known}")
    return _made(values, str(path))


def univla_config_of_weights(weights: Mapping[str, Tensor], what: str) -> UnivlaConfig:
    """Sizes of a published state dict, by its shapes. Heads leave no trace in them: 64 numbers each,
    as published."""
    try:
        stage = 2 if "action_latent_controllable" in weights else 1
        codebook = weights["vq_action.codebook.weight" if stage == 2 else "vq.codebook.weight"]
        wide, dim = weights["encoder.ffn.1.weight"].shape
        values = {
            "model_dim": wide, "latent_dim": codebook.shape[1], "num_latents": codebook.shape[0],
            "context_latents": weights["vq.codebook.weight"].shape[0],
            "num_codes": weights["action_latent"].shape[2], "enc_blocks": _blocks(weights, "encoder"),
            "dec_blocks": _blocks(weights, "decoder"), "num_heads": max(1, math.ceil(wide / 64)),
            "dino_dim": dim, "stage": stage,
        }  # fmt: skip
    except (LookupError, ValueError) as error:
        raise UserError(
            f"{what} holds no latent action model of UniVLA ({short(str(error))}): expected the layout "
            "of lam-stage-2.ckpt"
        ) from error
    return _made(values, what)


def _blocks(weights: Mapping[str, Tensor], stack: str) -> int:
    prefix = f"{stack}.transformer_blocks."
    return 1 + max(int(name.split(".")[2]) for name in weights if name.startswith(prefix))


def _made(values: dict[str, Any], what: str) -> UnivlaConfig:
    try:
        return UnivlaConfig(**values)
    except (TypeError, ValueError) as error:
        raise UserError(f"{what}: {short(str(error))}") from error
