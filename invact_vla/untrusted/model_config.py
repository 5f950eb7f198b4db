"""Configs beside a stranger's weights: decoded, and built without memory, before they are believed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import draccus
import torch
from torch import nn

from invact_vla.core.errors import UserError
from invact_vla.core.limits import short

Config = TypeVar("Config")
Module = TypeVar("Module", bound=nn.Module)


def decode_config(kind: type[Config], value: object, what: str) -> Config:
    """A dataclass from what JSON gave; UserError that names `what` where it is none."""
    decode: Callable[[type, Any], Any] = draccus.decode
    with _faults(what):
        return decode(kind, value)


def on_meta(build: Callable[[], Module], what: str) -> Module:
    """The module that a config asks for, without memory for its weights; UserError that names `what`
    where no module can have such sizes."""
    with _faults(what), torch.device("meta"):
        return build()


@contextmanager
def _faults(what: str) -> Iterator[None]:
    """What a config can raise, in one line of its innermost cause."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # libraries that build modules have errors of their own
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise UserError(f"{what}: {short(str(cause))}") from error
