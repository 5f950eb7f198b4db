"""The choices of action head, as they stand in a recipe (`--head.type oft`) and in config.json."""

from dataclasses import dataclass
from typing import Any, Literal

import draccus

MAX_BLOCKS = 1024


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
        if type(self.blocks) is not int or self.blocks > MAX_BLOCKS:
            raise ValueError(f"head: at most {MAX_BLOCKS} blocks")
        if self.blocks < 0 or (self.slots_per_action is not None and self.slots_per_action < 1):
            raise ValueError("head: need blocks >= 0 and slots_per_action >= 1 or null")
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
