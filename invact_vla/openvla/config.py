"""What an OpenVLA is made of: the fields of the published config.json, and a few of our own, among them
the choices of action head (`--head.type oft`).

The published fields keep their names. Ours live under one extra key, "invact", and the explicit
description of the towers under "towers", so that other readers of the file can ignore them.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import draccus
from transformers import LlamaConfig

from invact_vla.data.conventions import ROTATIONS

IGNORED = -100  # label of a place without a target
PROMPT = "In: What action should the robot take to {instruction}?\nOut:"  # OpenVLA's
ROTATIONS = tuple(ROTATIONS)  # what may be done to an upright frame

MAX_LAYERS, MAX_SIDE, MAX_WIDTH, MAX_ROWS = 1024, 4096, 1 << 20, 1 << 24


def _check_sizes(config: Any, **most: int) -> None:
    """ValueError for a size that no model has: it would be built before the weights deny it."""
    for name, limit in most.items():
        value = getattr(config, name)
        if type(value) is not int or not 0 < value <= limit:
            raise ValueError(f"{name} must be a whole number of 1..{limit}")


@dataclass(frozen=True, kw_only=True)
class TowerConfig:
    """One vision tower as explicit arguments of timm's VisionTransformer."""

    kind: str = ""  # words for the reader, no meaning
    img_size: int = 224  # side in px
    patch_size: int = 14  # side in px
    embed_dim: int = 768  # width
    depth: int = 12  # blocks; the last one is never run
    num_heads: int = 12  # attention heads
    mlp_ratio: float = 4.0  # hidden width of the MLP over the width
    init_values: float | None = None  # initial LayerScale; null: no LayerScale
    class_token: bool = True  # a class token before the patches
    reg_tokens: int = 0  # register tokens
    no_embed_class: bool = False  # position embedding for the patches only
    global_pool: str = "token"  # "map": an attention pool exists (never run)
    options: dict[str, Any] = field(default_factory=dict)  # further VisionTransformer arguments

    def __post_init__(self) -> None:
        _check_sizes(self, depth=MAX_LAYERS, img_size=MAX_SIDE, patch_size=MAX_SIDE,
                     embed_dim=MAX_WIDTH, num_heads=MAX_WIDTH)  # fmt: skip
        if self.depth < 2:
            raise ValueError(
                f"tower depth must be at least 2 (the last is not run), got {self.depth}"
            )
        if self.img_size % self.patch_size or self.embed_dim % self.num_heads:
            raise ValueError(
                f"tower: patch_size {self.patch_size} must divide img_size {self.img_size}, and "
                f"num_heads {self.num_heads} embed_dim {self.embed_dim}"
            )


def llama_config(**options: Any) -> LlamaConfig:
    """The Llama of an OpenVLA; transformers' defaults are what an empty text_config means: 7B, eps
    1e-6 and not Llama-2's own 1e-5, 2048 places. 32064 rows are 32000 pieces, padded."""
    return LlamaConfig(**{"vocab_size": 32064, **options})


@dataclass(frozen=True, kw_only=True)
class HeadConfig(draccus.ChoiceRegistry):
    """How a chunk of actions leaves the language model."""

    @classmethod
    def default_choice_name(cls) -> str:
        """What a config without a type means: published OpenVLA."""
        return "tokens"

    @classmethod
    def get_choice_class(cls, name: str) -> Any:
        """The config of a type; ValueError names those there are."""
        known = cls.get_known_choices()
        if name not in known:
            raise ValueError(f"unknown head type {name!r}: known are {', '.join(sorted(known))}")
        return known[name]


@HeadConfig.register_subclass("tokens")
@dataclass(frozen=True, kw_only=True)
class TokensHeadConfig(HeadConfig):
    """Each number of an action is one of 256 ids, decoded one after the other (OpenVLA)."""


@HeadConfig.register_subclass("oft")
@dataclass(frozen=True, kw_only=True)
class OftHeadConfig(HeadConfig):
    """The whole chunk in one bidirectional pass over action slots (OpenVLA-OFT)."""

    output: Literal["l1", "tokens"] = "l1"  # an MLP-ResNet with L1 loss, or action ids
    slots_per_action: int | None = None  # slots of one action; null: one per number, as published
    learned_slots: bool = False  # slots have embeddings of their own; published ones are zero
    blocks: int = 2  # residual blocks of the MLP-ResNet

    def __post_init__(self) -> None:
        if type(self.blocks) is not int or not 0 <= self.blocks <= MAX_LAYERS:
            raise ValueError(f"head: blocks must be a whole number of 0..{MAX_LAYERS}")
        if self.slots_per_action is not None and self.slots_per_action < 1:
            raise ValueError("head: slots_per_action must be at least 1, or null")
        if self.output == "tokens" and self.slots_per_action is not None:
            raise ValueError("head: output tokens needs a slot for each number of an action")


@HeadConfig.register_subclass("text")
@dataclass(frozen=True, kw_only=True)
class TextHeadConfig(HeadConfig):
    """Actions as integers in words, such as "512 498 3", decoded as text (VLA-0)."""

    steps: int = 1000  # the integers are 0..steps, over the normalized range

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"head: steps must be at least 1, got {self.steps}")


@dataclass(frozen=True, kw_only=True)
class OpenVLAExtensions:
    """What this project adds to a published OpenVLA; the defaults add nothing."""

    text_vocab_size: int | None = None  # without padding; null: rows - pad_to_multiple_of
    separator_token_id: int | None = None  # lone word boundary before the targets; null: none
    cameras: tuple[str, ...] = ("agentview",)  # images of one observation, in order
    # what is done to each camera's upright frame; empty: nothing
    image_rotation: tuple[str, ...] = ()
    gripper_open: int = 1  # the gripper value of its training actions that means open, 0 or 1
    prompt: str = PROMPT  # the text around the instruction, which is in lower case
    proprio_dim: int = 0  # numbers of the state token (OpenVLA-OFT §III); 0: no such token
    action_dim: int = 7  # numbers of one action
    chunk: int = 1  # actions predicted per call
    constrain_actions: bool = False  # decode among action ids only
    latent_token_ids: tuple[int, ...] = ()  # row of each latent code, in the unused vocabulary rows
    head: HeadConfig = field(default_factory=TokensHeadConfig)  # how actions leave the model

    def __post_init__(self) -> None:
        unknown = set(self.cameras) - {"agentview", "wrist"}
        if not self.cameras or unknown:
            raise ValueError(f"cameras must be among agentview, wrist; got {list(self.cameras)}")
        turned = self.image_rotation
        if turned and (set(turned) - set(ROTATIONS) or len(turned) != len(self.cameras)):
            raise ValueError(
                f"image_rotation: expected one of {ROTATIONS} per camera, got {list(turned)}"
            )
        if self.gripper_open not in (0, 1):
            raise ValueError(f"gripper_open must be 0 or 1, got {self.gripper_open}")
        _check_sizes(self, chunk=MAX_SIDE, action_dim=MAX_SIDE)
        if type(self.proprio_dim) is not int or not 0 <= self.proprio_dim <= MAX_SIDE:
            raise ValueError(f"proprio_dim must be a whole number of 0..{MAX_SIDE}")
        if len(set(self.latent_token_ids)) != len(self.latent_token_ids):
            raise ValueError(f"latent_token_ids repeat: {self.latent_token_ids}")


@dataclass(frozen=True, kw_only=True)
class OpenVLAConfig:
    """A model. The fields up to norm_stats are those of the published config.json."""

    vision_backbone_id: str = "dinosiglip-vit-so-224px"  # name only
    llm_backbone_id: str = "llama2-7b-pure"  # name only
    arch_specifier: str = "no-align+fused-gelu-mlp"  # name only
    use_fused_vision_backbone: bool = True  # two towers, three-layer projector; else 1 and 2
    timm_model_ids: tuple[str, ...] = ()  # towers by timm name; ignored where `towers` is given
    timm_override_act_layers: tuple[str | None, ...] = (None, None)  # activation of each tower
    image_sizes: tuple[int, ...] = (224, 224)  # side in px, per tower
    image_resize_strategy: Literal["resize-naive", "letterbox", "resize-crop"] = "resize-naive"
    hf_llm_id: str = "meta-llama/Llama-2-7b-hf"  # name only
    llm_max_length: int = 2048  # longest text
    pad_token_id: int = 32000  # padding on the right
    pad_to_multiple_of: int = 64  # of the embedding rows
    output_projector_states: bool = False  # published, without a meaning here
    n_action_bins: int = 256  # ids at the end of the vocabulary that mean actions
    norm_stats: dict[str, Any] = field(default_factory=dict)  # statistics per data set
    text_config: LlamaConfig = field(default_factory=llama_config)  # the language model
    towers: tuple[TowerConfig, ...] = ()  # explicit towers
    invact: OpenVLAExtensions = field(default_factory=OpenVLAExtensions)  # this project's additions

    def __post_init__(self) -> None:
        count, fused = len(self.towers) or len(self.timm_model_ids), self.use_fused_vision_backbone
        if count != self.n_towers:
            raise ValueError(
                f"use_fused_vision_backbone {fused} needs {self.n_towers} tower(s), got {count}"
            )
        _check_sizes(self.text_config, num_hidden_layers=MAX_LAYERS, hidden_size=MAX_WIDTH,
                     intermediate_size=MAX_WIDTH, num_attention_heads=MAX_WIDTH,
                     num_key_value_heads=MAX_WIDTH, head_dim=MAX_WIDTH, vocab_size=MAX_ROWS)  # fmt: skip
        rows = self.text_config.vocab_size
        if not 0 < self.vocab_size <= rows or not 0 <= self.pad_token_id < rows:
            raise ValueError(
                f"need 0 < vocabulary {self.vocab_size} <= rows {rows} and 0 <= pad_token_id "
                f"{self.pad_token_id} < rows"
            )
        latent, free = self.invact.latent_token_ids, self.first_free_row
        if any(not free <= i < rows for i in latent):
            raise ValueError(
                f"latent_token_ids {latent} must lie in the unused rows [{free}, {rows})"
            )

    @property
    def slots(self) -> int:
        """Action slots of a head that decodes in parallel; 0 for one that does not."""
        head, own = self.invact.head, self.invact
        is_parallel = isinstance(head, OftHeadConfig)
        return own.chunk * (head.slots_per_action or own.action_dim) if is_parallel else 0

    @property
    def n_towers(self) -> int:
        """2 with the fused backbone, else 1."""
        return 2 if self.use_fused_vision_backbone else 1

    @property
    def image_size(self) -> int:
        """Side of the model's images in px."""
        return self.towers[0].img_size if self.towers else self.image_sizes[0]

    @property
    def vocab_size(self) -> int:
        """Ids with a meaning: pieces and actions, without padding rows (published: 32000)."""
        own = self.invact.text_vocab_size
        return self.text_config.vocab_size - self.pad_to_multiple_of if own is None else own

    @property
    def allowed_ids(self) -> range | None:
        """The ids that actions are decoded among; None: all."""
        first = self.vocab_size - self.n_action_bins
        return range(first, self.vocab_size) if self.invact.constrain_actions else None

    @property
    def first_free_row(self) -> int:
        """First embedding row after the vocabulary and the padding id (published: 32001)."""
        return max(self.vocab_size, self.pad_token_id + 1)
