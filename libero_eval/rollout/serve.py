"""`invact libero serve`: a policy for rollouts in other processes, environments or machines.

Print, once it listens: the URL for `invact libero rollout --policy.type remote --policy.url URL`.
"""

import logging
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from invact_vla.core.errors import UserError
from libero_eval.executors.child_process import begin_child, end_child, start_child
from libero_eval.policies import PolicyConfig
from libero_eval.serving import MAX_BYTES, missing_package
from libero_eval.serving.address import server_token

STOP_ON = (signal.SIGINT, signal.SIGTERM)
START_S = 1800.0  # a policy that is not loaded by then hangs; large checkpoints load for minutes


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Which policy is served, and where."""

    policy: PolicyConfig  # which one: --policy.type checkpoint --policy.folder DIR
    host: str = "127.0.0.1"  # address to listen at; beyond loopback, give a token
    port: int = 8000  # 0: any free one
    max_batch: int = 16  # most observations in a batch
    max_wait_ms: float = 5.0  # longest wait for others; none once every running episode has asked
    max_bytes: int = MAX_BYTES  # largest message that is read
    keep_s: float = 60.0  # how long the episodes of a client that is gone wait for its return
    token_file: Path | None = None  # its text is what clients must know, else INVACT_POLICY_TOKEN's

    def __post_init__(self) -> None:
        if not 0 <= self.port < 1 << 16:
            raise ValueError(f"port must be in 0..65535, got {self.port}")
        if self.max_batch < 1 or self.max_wait_ms < 0 or self.keep_s < 0:
            raise ValueError("need max_batch >= 1, max_wait_ms >= 0 and keep_s >= 0")
        if self.max_bytes < 1 << 10:
            raise ValueError(f"max_bytes must be at least 1024, got {self.max_bytes}")


def main(config: ServeConfig) -> None:
    """Serve until Ctrl-C or SIGTERM. Raises UserError for a bad policy or a port in use."""
    logging.getLogger("websockets").setLevel(logging.WARNING)
    serve_policy(config, lambda url: print(f"serving at {url}", flush=True))


def serve_policy(
    config: ServeConfig, ready: Callable[[str], None], stop_on: Sequence[int] = STOP_ON
) -> None:
    """Load the policy and serve it; ready is called with the URL, stop_on: signals."""
    try:
        import websockets.exceptions  # noqa: F401 - before the policy is loaded, which takes long

        from libero_eval.serving.server import serve
    except ModuleNotFoundError as error:
        raise missing_package(error) from error
    token = server_token(config.token_file)
    policy = config.policy
    serve(
        policy.load(), name=policy.get_choice_name(type(policy)), policy_hash=policy.hash(),
        host=config.host, port=config.port, max_batch=config.max_batch,
        max_wait_ms=config.max_wait_ms, max_bytes=config.max_bytes, keep_s=config.keep_s,
        token=token, ready=ready, stop_on=stop_on,
    )  # fmt: skip


@contextmanager
def local_server(policy: PolicyConfig, **options: Any) -> Iterator[str]:
    """Serve a policy from a process of its own, at a free port of loopback; gives the URL.

    All workers of a rollout are its clients, so that one process holds the weights. options: other
    fields of ServeConfig. The process ends with the block, and at once when this process ends,
    however that ends. Raises UserError if the policy cannot be loaded or served.
    """
    process, pipe = start_child(_serve, ServeConfig(policy=policy, port=0, **options))
    try:
        yield _url(pipe)
    finally:
        process.terminate()
        end_child(process, pipe)


def _url(pipe: Connection) -> str:
    if not pipe.poll(START_S):
        raise UserError(f"the policy server was not ready within {START_S:g} s")
    try:
        message = pipe.recv()
    except EOFError as error:
        raise UserError("the policy server died while starting: see its messages above") from error
    if isinstance(message, UserError):
        raise message
    return message


def _serve(pipe: Connection, config: ServeConfig) -> None:
    begin_child()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        serve_policy(config, pipe.send, stop_on=(signal.SIGTERM,))
    except UserError as error:
        pipe.send(error)
