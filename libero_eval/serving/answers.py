"""What a server answers, held against what it declared: length, range, and the gripper's convention."""

import logging
from typing import Any

import numpy as np

from invact_vla.core.errors import UserError
from invact_vla.core.schema import ActionChunk
from libero_eval.policy_source import REFUSED
from libero_eval.serving import messages
from libero_eval.serving.gripper import GripperRange
from libero_eval.serving.shown import cause_first, shown

logger = logging.getLogger(__name__)


class Answers:
    """Reads the answers of one server, and remembers what it has seen of them."""

    def __init__(self, url: str, chunk: int) -> None:
        """chunk: actions per call, as the server declares."""
        self._url, self._chunk = url, chunk
        self._gripper = GripperRange()
        self._is_cut = False

    def chunk(self, answer: dict[str, Any]) -> ActionChunk | UserError:
        """The actions of an answer, or what is wrong with it. More actions than the server declares
        are not executed: the policy is asked again where it said that it would be."""
        if "error" in answer:
            return UserError(f"{self._url}: {error_of(answer)}")
        values = answer.get("actions")
        if not isinstance(values, np.ndarray):
            return UserError(f"{self._url} answered without actions: {shown(answer)}")
        if values.dtype.kind in "fiu":
            values = values.astype(np.float32)
        try:
            actions = ActionChunk(values).values
        except ValueError as error:
            return UserError(f"{self._url} answered with a wrong {error}")
        if len(actions) > self._chunk:
            self._say_cut(len(actions))
            actions = actions[: self._chunk]
        fault = self._gripper.fault(actions[:, 6])
        if fault is not None:
            return UserError(f"{REFUSED}: {self._url} answers with {fault}")
        return ActionChunk(actions)

    def _say_cut(self, count: int) -> None:
        if not self._is_cut:
            logger.warning(
                "%s answers with %d actions but declares chunk %d: the first %d of each answer are "
                "executed, then it is asked again; declare chunk=%d to have all of them executed",
                *(self._url, count, self._chunk, self._chunk, count),
            )
        self._is_cut = True


def error_of(answer: dict[str, Any]) -> str:
    """The error in an answer, the cause first."""
    error = answer.get("error")
    if not isinstance(error, dict):
        return f"an error that is none of ours: {shown(error)}"
    kind, message = error.get("kind"), error.get("message")
    text = message if isinstance(message, str) else shown(message)
    return f"{kind if messages.is_name(kind) else shown(kind)} error: {cause_first(text)}"
