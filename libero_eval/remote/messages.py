"""What goes over the wire: plain data in msgpack, arrays as (dtype, shape, bytes), never a pickle.

    client                                                     server
    {call: hello, version, client}                          -> {version, name, needs, chunk, ...}
    {call: reset, id, episode, seed}                        -> {id}
    {call: act, id, episode, observation: {agentview, ..}}  -> {id, actions}
    {call: release, id, episode}                            -> {id}

An answer to what went wrong is {id, error: {kind, message}}; kinds are the constants below. An
episode waits for each answer before its next call; a client may run many episodes. A call that is
sent again with the id of the episode's last one, as after a reconnection, is not repeated.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import msgpack
import numpy as np

from invact_vla.schema import LIBERO_ACTIONS, ActionSpec, Observation
from libero_eval.remote import MAX_BYTES

VERSION = 1
ARRAY = 1  # msgpack's extension type of an array
DTYPES = ("|u1", "|b1", "<i4", "<i8", "<f4", "<f8")

BAD_REQUEST = "request"  # the message is not what was agreed
BAD_VERSION = "version"  # the other side speaks another version
NO_EPISODE = "episode"  # the server knows no such episode: it was started anew, or told to forget
POLICY_FAILED = "policy"  # the policy raised; the message says what and where


class WireError(ValueError):
    """Bytes or a message that are not what was agreed."""


@dataclass(frozen=True, kw_only=True)
class PolicyCard:
    """What a server says of its policy. needs: cameras that it reads; chunk: actions a call; hash:
    identity of its weights, "" if it has none."""

    name: str
    needs: tuple[str, ...]
    chunk: int
    hash: str = ""
    actions: ActionSpec = LIBERO_ACTIONS
    max_bytes: int = MAX_BYTES
    version: int = VERSION

    def to_message(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> "PolicyCard":
        """Raises WireError for what is no card."""
        try:
            values = {f.name: message[f.name] for f in fields(cls)}
            actions = dict(values.pop("actions"))
            actions["names"] = tuple(actions["names"])
            values["needs"] = tuple(str(name) for name in values["needs"])
            card = cls(**values, actions=ActionSpec(**actions))
        except (KeyError, TypeError, ValueError) as error:
            raise WireError(f"not a policy's card: {error!r}") from error
        if not isinstance(card.chunk, int) or card.chunk < 1 or not isinstance(card.max_bytes, int):
            raise WireError(f"a policy's chunk and max_bytes must be positive, got {card}")
        return card


def encode(message: dict[str, Any]) -> bytes:
    """A message -> bytes. Raises TypeError for anything but plain data and numeric arrays."""
    packed: Any = msgpack.packb(message, default=_pack_array)
    return packed


def decode(data: object) -> dict[str, Any]:
    """Bytes -> a message; arrays are copies. Raises WireError for anything else."""
    if not isinstance(data, bytes):
        raise WireError(f"expected bytes, got {type(data).__name__}")
    try:
        message = msgpack.unpackb(data, ext_hook=_unpack_array)
    except WireError:
        raise
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise WireError(f"not a message: {error!r}") from error
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
        raise WireError(f"expected an observation with {sorted(names)}, got {_shown(message)}")
    missing = [camera for camera in needs if message.get(camera) is None]
    if missing:
        raise WireError(f"this policy reads the cameras {missing}, which were not sent")
    arrays = [message["agentview"], message["state"]]
    arrays += [] if message["wrist"] is None else [message["wrist"]]
    if not all(isinstance(a, np.ndarray) for a in arrays):
        raise WireError("expected arrays as agentview, wrist (or nil) and state")
    if not isinstance(message["instruction"], str):
        raise WireError("expected text as instruction")
    try:
        return Observation(**message)
    except ValueError as error:
        raise WireError(str(error)) from error


def _shown(message: object) -> str:
    return str(sorted(map(str, message)) if isinstance(message, dict) else type(message).__name__)


def _pack_array(value: object) -> msgpack.ExtType:
    if not isinstance(value, np.ndarray) or value.dtype.str not in DTYPES:
        raise TypeError(f"only plain data and arrays of {DTYPES} can be sent, got {value!r:.80}")
    parts = (value.dtype.str, value.shape, value.tobytes())
    packed: Any = msgpack.packb(parts)
    return msgpack.ExtType(ARRAY, packed)


def _unpack_array(code: int, data: bytes) -> np.ndarray:
    if code != ARRAY:
        raise WireError(f"unknown extension type {code}")
    try:
        dtype, shape, raw = msgpack.unpackb(data)
        if dtype not in DTYPES or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise WireError(f"expected an array of {DTYPES}, got {dtype!r} {shape!r}")
        return np.frombuffer(raw, np.dtype(dtype)).reshape(shape).copy()
    except WireError:
        raise
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise WireError(f"not an array: {error!r}") from error
