"""Configs beside a stranger's weights: decoded, and built without memory, before they are believed."""

from collections.abc import Callable
from typing import Any, TypeVar

import draccus
import torch
from torch import nn

from invact_vla.core.limits import one_line

Config = TypeVar("Config")
Module = TypeVar("Module", bound=nn.Module)


def decode_config(kind: type[Config], value: object, what: str) -> Config:
    """A dataclass from what JSON gave; UserError that names `what` where it is none."""
    decode: Callable[[type, Any], Any] = draccus.decode
    with one_line(f"{what}: {{error}}"):
        return decode(kind, value)


def on_meta(build: Callable[[], Module], what: str) -> Module:
    """The module that a config asks for, without memory for its weights; UserError that names `what`
    where no module can have such sizes."""
    with one_line(f"{what}: {{error}}"), torch.device("meta"):
        return build()
