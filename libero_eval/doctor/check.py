"""What a check is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from libero_eval.doctor.context import DiagnosticContext
from libero_eval.doctor.finding import Finding


@dataclass(frozen=True, kw_only=True)
class Check:
    """A question. needs: checks that must not have failed, or the answer would mislead.

    of: what must be there: "setup" always is, "checkpoint" a folder, "policy" anything that answers
    observations alone.
    """

    name: str
    run: Callable[[DiagnosticContext], Finding]
    of: Literal["setup", "checkpoint", "policy"] = "setup"
    needs: tuple[str, ...] = ()
