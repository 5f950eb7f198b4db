"""Policies in another process, environment or machine: msgpack over a websocket.

The server side (`server`) needs NumPy, websockets and msgpack alone; see docs/remote_policy.md.
"""

from invact_vla.core.errors import UserError

MAX_BYTES = 16 << 20  # of a message; two 1024 px frames have 6 MB


def missing_package(error: ModuleNotFoundError) -> UserError:
    """What to do when the packages of the wire are not installed."""
    name = (error.name or "").split(".", maxsplit=1)[0]
    return UserError(f"policy servers need the package {name}: pip install 'invact-vla[remote]'")
