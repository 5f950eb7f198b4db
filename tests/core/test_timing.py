"""Times of the processor: those of processes that a side starts count too."""

import subprocess
import sys
import time

import torch

from invact_vla.core.timing import started_seconds, take_turns

BURN = "import time\nwhile time.process_time() < {}: pass\nprint('done', flush=True)\ninput()"


def test_processes_that_run_or_have_ended_are_counted() -> None:
    before = started_seconds()
    code = BURN.format(0.4)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None and child.stdout.readline() == "done\n"
        running = started_seconds() - before
        child.communicate("\n")
    ended = started_seconds() - before
    assert running > 0.35 and ended > 0.35


def test_a_side_that_only_waits_costs_no_processor() -> None:
    sides = {"waits": lambda number: time.sleep(0.2)}
    timing = take_turns(sides, 2, torch.device("cpu"), "test")["waits"]
    assert min(timing.clock) >= 0.2 and max(timing.processor) < 0.15
