"""Executors, a file each: importing this package registers them."""

from libero_eval.executors.executor import (
    Executor,
    ExecutorConfig,
    JobQueue,
    OneByOne,
    Runner,
    SerialConfig,
)
from libero_eval.executors.processes import JobLost, ProcessesConfig, by_workers, run_all
from libero_eval.executors.ray import RayConfig

__all__ = [
    "Executor",
    "ExecutorConfig",
    "JobLost",
    "JobQueue",
    "OneByOne",
    "ProcessesConfig",
    "RayConfig",
    "Runner",
    "SerialConfig",
    "by_workers",
    "run_all",
]
