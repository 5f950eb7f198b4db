"""What goes over the wire: plain data in msgpack, arrays as (dtype, shape, bytes), never a pickle.

    client                                                     server
    {call: hello, version, client}                          -> {version, name, needs, chunk, ...}
    {call: reset, id, episode, seed}                        -> {id}
    {call: act, id, episode, observation: {agentview, ..}}  -> {id, actions}
    {call: release, id, episode}                            -> {id}

A response to what went wrong is {id, error: {kind, message}}; kinds are the constants below. An
episode waits for each response before its next call; a client may run many episodes. A call that is
sent again with the id of the episode's last one, as after a reconnection, is not repeated.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeGuard

import msgpack
import numpy as np

from invact_vla.core.schema import LIBERO_ACTIONS, ActionSpec, Observation
from libero_eval.serving import MAX_BYTES
from libero_eval.serving.text import one_line, shown

VERSION = 1
ARRAY = 1  # msgpack's extension type of an array
DTYPES = ("|u1", "|b1", "<i4", "<i8", "<f4", "<f8")

MAX_ITEMS = 256  # of one list or map
MAX_OBJECTS = 1024  # of all lists and maps of a message; a call has about 10
MAX_DIMENSIONS = 8  # of an array
MOST_CAMERAS = 8  # that a policy reads
LONGEST_NAME = 128  # characters: of a client, a policy, a camera, a hash
LONGEST_INSTRUCTION = 4096  # characters
LONGEST_CHUNK = 1024  # actions

BAD_REQUEST = "request"  # the message is not what was agreed
BAD_VERSION = "version"  # the other side speaks another version
NO_EPISODE = "episode"  # the server knows no such episode: it was started anew, or asked to forget
POLICY_FAILED = "policy"  # the policy raised; the message says what and where


class WireError(ValueError):
    """Bytes or a message that are not what was agreed. kind: one of the constants above."""

    def __init__(self, message: str, kind: str = BAD_REQUEST) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, kw_only=True)
class PolicyCard:
    """What a server says of its policy. Raises WireError for what is none of these."""

    name: str
    needs: tuple[str, ...]  # cameras that it reads
    chunk: int  # actions per call
    hash: str = ""  # identity of its weights, "" if it has none
    actions: ActionSpec = LIBERO_ACTIONS
    max_bytes: int = MAX_BYTES
    version: int = VERSION

    def __post_init__(self) -> None:
        texts = (self.name, self.hash, *self.needs)
        if not all(map(is_name, texts)) or len(self.needs) > MOST_CAMERAS:
            raise WireError(
                f"expected at most {LONGEST_NAME} printable characters as a policy's name, hash and "
                f"cameras, got {shown(texts)}"
            )
        if not (is_whole(self.chunk) and 1 <= self.chunk <= LONGEST_CHUNK):
            raise WireError(
                f"a policy's chunk must be in 1..{LONGEST_CHUNK}, got {shown(self.chunk)}"
            )
        if not (is_whole(self.max_bytes) and self.max_bytes >= 1):
            raise WireError(f"a policy's max_bytes must be positive, got {shown(self.max_bytes)}")

    def to_message(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> "PolicyCard":
        """Raises WireError for what is no card."""
        try:
            values = {f.name: message[f.name] for f in fields(cls)}
            actions = _action_spec(values.pop("actions"))
            if not isinstance(values["needs"], list | tuple):
                raise TypeError(f"needs {shown(values['needs'])}")
            return cls(**{**values, "needs": tuple(values["needs"])}, actions=actions)
        except (KeyError, TypeError) as error:
            raise WireError(f"not a policy's card: {one_line(repr(error))}") from error


def is_name(value: object) -> TypeGuard[str]:
    """Whether a value can be stored and printed as a name."""
    return isinstance(value, str) and len(value) <= LONGEST_NAME and value.isprintable()


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number, which True is not."""
    return isinstance(value, int) and not isinstance(value, bool)


def _action_spec(values: Any) -> ActionSpec:
    spec = ActionSpec(**{**values, "names": tuple(values["names"])})
    texts = (spec.frame, spec.gripper, *spec.names)
    numbers = (spec.low, spec.high)
    if not all(map(is_name, texts)) or not all(isinstance(n, int | float) for n in numbers):
        raise TypeError(f"actions {shown(values)}")
    return spec


def encode(message: dict[str, Any]) -> bytes:
    """A message -> bytes. Raises TypeError for anything but plain data and numeric arrays."""
    packed: Any = msgpack.packb(message, default=_pack_array, unicode_errors="replace")
    return packed


def decode(data: object) -> dict[str, Any]:
    """Bytes -> a message; arrays are copies. Raises WireError for anything else, and for more than
    MAX_OBJECTS in it, before they are made."""
    if not isinstance(data, bytes):
        raise WireError(f"expected bytes, got {type(data).__name__}")
    counter = _Counter()
    message = _unpacked(
        data, "a message", max_array_len=MAX_ITEMS, max_map_len=MAX_ITEMS,
        list_hook=counter, object_hook=counter, ext_hook=_unpack_array,
    )  # fmt: skip
    if not isinstance(message, dict):
        raise WireError(f"expected a map, got {type(message).__name__}")
    return message


def observation_to_message(observation: Observation) -> dict[str, Any]:
    """The fields of an observation by name."""
    return {field.name: getattr(observation, field.name) for field in fields(Observation)}


def observation_of(message: object, needs: Sequence[str]) -> Observation:
    """The observation in a message. Raises WireError if it is none, or lacks a camera of `needs`."""
    names = {field.name for field in fields(Observation)}
    if not isinstance(message, dict) or set(message) != names:
        raise WireError(f"expected an observation with {sorted(names)}, got {shown(message)}")
    missing = [camera for camera in needs if message.get(camera) is None]
    if missing:
        raise WireError(f"this policy reads the cameras {missing}, which were not sent")
    arrays = [message["agentview"], message["state"]]
    arrays += [] if message["wrist"] is None else [message["wrist"]]
    if not all(isinstance(a, np.ndarray) and a.size for a in arrays):
        raise WireError("expected arrays as agentview, wrist (or nil) and state")
    text = message["instruction"]
    if not isinstance(text, str) or len(text) > LONGEST_INSTRUCTION:
        raise WireError(
            f"expected text of at most {LONGEST_INSTRUCTION} characters as instruction, "
            f"got {shown(text)}"
        )
    try:
        return Observation(**message)
    except ValueError as error:
        raise WireError(one_line(str(error))) from error


class _Counter:
    """Lets the lists and maps of one message pass until there are too many things in them."""

    def __init__(self) -> None:
        self._left = MAX_OBJECTS

    def __call__(self, container: Any) -> Any:
        self._left -= 1 + len(container)
        if self._left < 0:
            raise WireError(f"not a message: more than {MAX_OBJECTS} objects in it")
        return container


def _unpacked(data: bytes, what: str, **options: Any) -> Any:
    """What msgpack reads. Raises WireError, which names no more than the kind of a fault."""
    try:
        return msgpack.unpackb(data, **options)
    except WireError:
        raise
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        fault = f"{type(error).__name__} {error}"
        raise WireError(f"not {what}: {one_line(fault)}") from error


def _pack_array(value: object) -> msgpack.ExtType:
    if not isinstance(value, np.ndarray) or value.dtype.str not in DTYPES:
        raise TypeError(
            f"only plain data and arrays of {DTYPES} can be sent, got {type(value).__name__}"
        )
    parts = (value.dtype.str, value.shape, value.tobytes())
    packed: Any = msgpack.packb(parts)
    return msgpack.ExtType(ARRAY, packed)


def _unpack_array(code: int, data: bytes) -> np.ndarray:
    if code != ARRAY:
        raise WireError(f"unknown extension type {code}")
    parts = _unpacked(data, "an array", max_array_len=MAX_DIMENSIONS, max_map_len=0)
    if not isinstance(parts, list) or len(parts) != 3:
        raise WireError(f"expected (dtype, shape, bytes) as an array, got {shown(parts)}")
    dtype, shape, raw = parts
    if dtype not in DTYPES or not isinstance(shape, list) or not isinstance(raw, bytes):
        raise WireError(f"expected an array of {DTYPES}, got {shown(parts)}")
    if not all(is_whole(n) and n >= 0 for n in shape):
        raise WireError(f"expected a shape of an array, got {shown(shape)}")
    try:
        return np.frombuffer(raw, np.dtype(dtype)).reshape(shape).copy()
    except (ValueError, TypeError, OverflowError) as error:
        raise WireError(f"not an array: {one_line(str(error))}") from error
