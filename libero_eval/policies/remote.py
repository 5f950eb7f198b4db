"""A policy behind a server: in another environment, on another machine, or shared by workers."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import draccus

from libero_eval.env.protocol import Protocol
from libero_eval.policies.config import PolicyConfig
from libero_eval.policy_source import PolicySource
from libero_eval.serving import missing_package
from libero_eval.serving.address import ServerUrl

if TYPE_CHECKING:
    from libero_eval.serving.client import RemoteSource
    from libero_eval.serving.messages import PolicyCard

draccus.decode.register(ServerUrl, lambda value, _=None: ServerUrl(value))
draccus.encode.register(ServerUrl, lambda url, _=None: str(url))

_DEFAULT_URL = ServerUrl("ws://127.0.0.1:8000")


@PolicyConfig.register_subclass("remote")
@dataclass(frozen=True, kw_only=True)
class RemoteConfig(PolicyConfig):
    """A policy that `invact libero serve` or libero_eval/serving/server.py serves."""

    url: ServerUrl = _DEFAULT_URL  # where the server listens: ws://HOST:PORT
    timeout_s: float = 60.0  # longest time a response may take, once it has acted
    first_response_s: float = 300.0  # longest time until its first action: it may load and compile
    wait_s: float = 0.0  # how long to wait for a server that does not listen yet

    def __post_init__(self) -> None:
        if not self.url.startswith(("ws://", "wss://")):
            raise ValueError("url must start with ws:// or wss://")  # it may hold a password
        object.__setattr__(self, "url", ServerUrl(self.url))
        if min(self.timeout_s, self.first_response_s) <= 0:
            raise ValueError("timeout_s and first_response_s must be positive")
        if self.wait_s < 0:
            raise ValueError(f"wait_s must not be negative, got {self.wait_s}")

    def load(self) -> PolicySource:
        """Connect. Raises UserError if no policy server responds."""
        return self._connect()

    def hash(self) -> str:
        """What the server says: the hash of the policy that it serves."""
        return self._card().hash or super().hash()

    def for_protocol(self, protocol: Protocol) -> PolicyConfig:
        """Checks the cameras that the server's policy reads."""
        protocol.check_cameras(self._card().needs)
        return self

    def _card(self) -> "PolicyCard":
        source = self._connect()
        source.close()
        return source.card

    def _connect(self) -> "RemoteSource":
        try:
            from libero_eval.serving.client import Link, RemoteSource
        except ModuleNotFoundError as error:
            raise missing_package(error) from error
        limits = (self.timeout_s, self.first_response_s, self.wait_s)
        return RemoteSource(Link(self.url.with_token(), *limits))
