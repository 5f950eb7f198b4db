"""Executors, a file each: importing this package registers them."""

from libero_eval.executors.executor import Executor, ExecutorConfig, JobQueue, OneByOne, Runner
from libero_eval.executors.processes import ProcessesConfig
from libero_eval.executors.ray import RayConfig
from libero_eval.executors.run_all import JobLost, by_workers, run_all
from libero_eval.executors.serial import SerialConfig

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
