"""A policy server of one's own: one process holds the weights, and all workers are its clients."""

import logging
import multiprocessing
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from invact_vla.core.errors import UserError
from libero_eval.executors.child_process import end_with_parent, one_thread
from libero_eval.policies import PolicyConfig
from libero_eval.rollout.serve import ServeConfig, serve_policy

START_S = 1800.0  # a policy that is not loaded by then hangs; large checkpoints load for minutes


@contextmanager
def local_server(policy: PolicyConfig, **options: Any) -> Iterator[str]:
    """Serve a policy from a process of its own, at a free port of loopback; gives the URL.

    options: other fields of ServeConfig. The process ends with the block, and at once when this
    process ends, however that ends. Raises UserError if the policy cannot be loaded or served.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    config = ServeConfig(policy=policy, port=0, **options)
    process = context.Process(target=_serve, args=(theirs, config), daemon=True)
    with one_thread():
        process.start()
    theirs.close()
    try:
        yield _url(ours)
    finally:
        process.terminate()
        process.join(timeout=10)
        if process.is_alive():
            process.kill()
            process.join()
        ours.close()


def _url(pipe: Connection) -> str:
    """The URL, once the server has sent it."""
    if not pipe.poll(START_S):
        raise UserError(f"the policy server was not ready within {START_S:g} s")
    try:
        answer = pipe.recv()
    except EOFError as error:
        raise UserError("the policy server died while starting: see its messages above") from error
    if isinstance(answer, UserError):
        raise answer
    return answer


def _serve(pipe: Connection, config: ServeConfig) -> None:
    """The server process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which stops us
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    threading.Thread(target=end_with_parent, daemon=True).start()
    try:
        serve_policy(config, pipe.send, stop_on=(signal.SIGTERM,))
    except UserError as error:
        pipe.send(error)
