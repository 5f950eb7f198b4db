"""What a server responds with, checked against what it declared: length, range, and the gripper.

Many policies give the gripper as 0..1 (1 open), as RLDS and OpenVLA's training data have it. LIBERO
takes every positive number for "close", so such a policy would never open its hand again; nor does one
close it that gives -1..0, for 0 moves nothing.
"""

import logging
from typing import Any

import numpy as np

from invact_vla.core.errors import UserError
from invact_vla.core.schema import ActionChunk
from libero_eval.policy_source import REFUSED
from libero_eval.serving import messages
from libero_eval.serving.text import cause_first, shown

logger = logging.getLogger(__name__)

OPEN_BELOW = -0.25  # a command this low means "open" in LIBERO's convention: all is well
NEAR = 0.1  # of an end
LEAST = 8  # commands before two ends are believed
DIFFERENT = 16  # unequal commands before values in between are believed
SPREAD = 0.5
MOST_KEPT = 2 * DIFFERENT  # distinct commands
STILL = 32  # commands near 0 before -1..0 is believed: a hand may rest before it first closes
FEW = 0.25  # of commands between -1 and 0: with more a policy is undecided, whatever its convention


class ResponseReader:
    """Reads the responses of one server, and remembers what it has seen of them."""

    def __init__(self, url: str, chunk: int) -> None:
        """chunk: actions per call, as the server declares."""
        self._url, self._chunk = url, chunk
        self._gripper = GripperRange()
        self._is_cut = False

    def chunk(self, response: dict[str, Any]) -> ActionChunk | UserError:
        """The actions of a response, or what is wrong with it. More actions than the server declares
        are not executed: the policy is asked again where it said that it would be."""
        if "error" in response:
            return UserError(f"{self._url}: {error_of(response)}")
        values = response.get("actions")
        if not isinstance(values, np.ndarray):
            return UserError(f"{self._url} responded without actions: {shown(response)}")
        if values.dtype.kind in "fiu":
            values = values.astype(np.float32)
        try:
            actions = ActionChunk(values).values
        except ValueError as error:
            return UserError(f"{self._url} responded with a wrong {error}")
        if len(actions) > self._chunk:
            if not self._is_cut:
                logger.warning(
                    "%s responds with %d actions but declares chunk %d: the first %d of each response "
                    "are executed, then it is asked again; declare chunk=%d to have all of them "
                    "executed",
                    *(self._url, len(actions), self._chunk, self._chunk, len(actions)),
                )
            self._is_cut, actions = True, actions[: self._chunk]
        fault = self._gripper.fault(actions[:, 6])
        if fault is not None:
            return UserError(f"{REFUSED}: {self._url} responds with {fault}")
        return ActionChunk(actions)


def error_of(response: dict[str, Any]) -> str:
    """The error in a response, the cause first."""
    error = response.get("error")
    if not isinstance(error, dict):
        return f"an error that is none of ours: {shown(error)}"
    kind, message = error.get("kind"), error.get("message")
    text = message if isinstance(message, str) else shown(message)
    return f"{kind if messages.is_name(kind) else shown(kind)} error: {cause_first(text)}"


class GripperRange:
    """Watches the gripper's commands, response by response, until their convention is known."""

    def __init__(self) -> None:
        self._seen = np.zeros(0)  # distinct commands, a few that tell as much as all of them
        self._count = self._still = self._open = 0  # of all commands, of those near 0, near -1
        self._lowest, self._highest = np.inf, -np.inf
        self._is_known = False

    def fault(self, commands: np.ndarray) -> str | None:
        """What is wrong with all commands so far, float (N,) of one more response; None if nothing.

        A fault stays: the convention of a server does not change.
        """
        if self._is_known:
            return None
        self._count += len(commands)
        self._still += int((np.abs(commands) <= NEAR).sum())
        self._open += int((commands <= NEAR - 1).sum())
        self._lowest = min(self._lowest, commands.min())
        self._highest = max(self._highest, commands.max())
        if self._lowest < OPEN_BELOW:
            self._seen, self._is_known = np.zeros(0), bool(self._highest > -OPEN_BELOW)
            return never_closes(self._highest, self._open, self._still, self._count)
        distinct = np.unique(np.concatenate([self._seen, commands.astype(np.float64)]))
        if len(distinct) > MOST_KEPT:
            distinct = np.concatenate([distinct[: MOST_KEPT - 1], distinct[-1:]])
        self._seen = distinct
        return unit_range(distinct, self._count)


def never_closes(
    highest: float, opened: int, still: int, count: int, least: int = STILL
) -> str | None:
    """The fault of `count` commands that look like -1..0: `opened` are near -1, and `still`, at least
    `least`, near 0; None if they do not."""
    decided = opened + still >= (1 - FEW) * count
    if highest > -OPEN_BELOW or not opened or still < least or not decided:
        return None
    return (
        f"a gripper never positive in {count} actions, near 0 in {still}: LIBERO's is -1 open, +1 "
        "close; where 0 means closed, send 2 * gripper + 1, where open, -1 - 2 * gripper"
    )


def unit_range(values: np.ndarray, count: int | None = None) -> str | None:
    """The fault of commands (N,) that look like 0..1; None if they do not.

    count: how many commands these are the distinct ones of; none given: N. Two ends, 0 and 1, are
    believed at once; values in between, as of a sigmoid, after more of them.
    """
    if values.min() < OPEN_BELOW:
        return None
    at_zero, at_one = np.abs(values) <= NEAR, values >= 1 - NEAR
    count = len(values) if count is None else count
    two_ends = count >= LEAST and at_zero.any() and at_one.any()
    two_ends = two_ends and bool((at_zero | at_one).all())
    between = len(np.unique(values)) >= DIFFERENT and np.ptp(values) > SPREAD
    if not (two_ends or between):
        return None
    return (
        f"a gripper in [{values.min():.2f}, {values.max():.2f}], never negative in {count} "
        "actions: LIBERO's is -1 open, +1 close; where 1 means open, send 1 - 2 * gripper, where 1 "
        "means closed, 2 * gripper - 1"
    )
