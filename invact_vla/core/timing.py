"""Sides of a comparison that take turns, so that the load of the machine hits all alike."""

import contextlib
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median

import psutil
import torch
from tqdm import tqdm

LEVEL = 0.95  # of the interval of a median


@dataclass(frozen=True)
class Timing:
    """Seconds of each round by the clock, and of the processor (all threads, and processes that were
    started): the latter depend less on what else runs, and say nothing of a GPU."""

    clock: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Ratio:
    """Median over rounds, and the interval of that median by order statistics."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, side: list[float], reference: list[float], amount: float = 1) -> "Ratio":
        """reference / side, round by round: how many times faster the side is, when it does `amount`
        times the work."""
        values = sorted(amount * b / a for a, b in zip(side, reference, strict=True))
        cut = outside(len(values))
        return cls(median(values), values[cut], values[-1 - cut])


def outside(count: int) -> int:
    """How many of `count` sorted values may be left out at each end of the interval of their median:
    the largest k with P(Binomial(count, 1/2) < k) <= (1 - LEVEL) / 2; 0 (the range) for few values."""
    below, k = 0.0, 0
    while True:
        below += math.comb(count, k) * 0.5**count
        if below > (1 - LEVEL) / 2:
            return max(k - 1, 0)
        k += 1


def take_turns(
    sides: Mapping[str, Callable[[int], object]],
    rounds: int,
    device: torch.device,
    description: str,
) -> dict[str, Timing]:
    """The times of each side, after one round that does not count. A side is called with
    the number of the round; the sides' order turns round, so that none always follows the same."""
    names = list(sides)
    timings = {name: Timing() for name in names}
    for number in tqdm(range(-1, rounds), desc=description):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            synchronize(device)
            others = started_seconds()  # first and last: looking for processes takes milliseconds
            own, clock = time.process_time(), time.perf_counter()
            sides[name](number)
            synchronize(device)
            clock, own = time.perf_counter() - clock, time.process_time() - own
            if number >= 0:
                timings[name].clock.append(clock)
                timings[name].processor.append(own + started_seconds() - others)
    return timings


def started_seconds() -> float:
    """Of the processor, by all processes that this one started, whether they run or have ended."""
    ended = os.times()
    seconds = ended.children_user + ended.children_system
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            used = child.cpu_times()
            seconds += used.user + used.system
    return seconds


def synchronize(device: torch.device) -> None:
    """Wait for what was started on the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
