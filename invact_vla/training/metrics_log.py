"""metrics.jsonl and trackers: what the training loop says of itself; and numbers that are not finite."""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from invact_vla.core.errors import UserError
from invact_vla.core.files import append_line, atomic_file
from invact_vla.training.distributed import is_main, mean_over_processes


def check_finite(
    values: Mapping[str, Any], step: int, first: int, config: Any, folder: Path
) -> None:
    """UserError that names the step, the metrics that are not finite, and what to try."""
    if all(math.isfinite(_number(values[name])) for name in ("loss", "gradient_norm")):
        return
    broken = [name for name, value in values.items() if not math.isfinite(_number(value))]
    kept = (step // config.checkpoint_every) * config.checkpoint_every
    kept_in = f"the checkpoint of step {kept} stays in {folder}" if kept else "no checkpoint yet"
    causes = ["the learning rate is too high (loop.learning_rate, loop.warmup_steps)"]
    if config.precision == "bf16":
        causes.append("bf16 overflows (loop.precision fp32)")
    causes.append("the data holds values that are not finite")
    if step == first:
        causes.reverse()
    raise UserError(
        f"{', '.join(broken)} not finite at step {step} (loss {_number(values['loss'])}); likely "
        f"causes: {'; '.join(causes)}; {kept_in}, and the same command continues from it"
    )


def _number(value: float | Tensor | None) -> float:
    return value.detach().item() if isinstance(value, Tensor) else float(value or 0.0)


class MetricsLog:
    """metrics.jsonl: means over the steps since the last row; rows past a checkpoint are dropped."""

    def __init__(self, folder: Path, first: int, config: Any, accelerator: Any) -> None:
        self.path = path = folder / "metrics.jsonl"
        self.config, self.accelerator = config, accelerator
        if config.trackers:
            accelerator.project_configuration.logging_dir = str(folder)
            try:
                accelerator.init_trackers(folder.name)
            except (ImportError, ValueError) as error:
                raise UserError(f"loop.trackers: {error}: install the tracker's package") from error
        self.sums: dict[str, float] = {}
        self.count, self.elapsed = 0, 0.0
        if path.exists() and is_main():
            lines = path.read_text().split("\n")[:-1]  # a killed writer may leave a torn last one
            kept = [r for r in map(json.loads, filter(None, lines)) if r.get("step", -1) < first]
            with atomic_file(path) as temporary:
                temporary.write_text("".join(json.dumps(r) + "\n" for r in kept))
            self.elapsed = kept[-1].get("seconds", 0.0) if kept else 0.0
        self.started = time.perf_counter()

    def add(self, step: int, rate: float, values: Mapping[str, Any]) -> dict[str, float]:
        """Collect the values of one step; returns the row when one is due, else an empty dict."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + _number(value)
        self.count += 1
        if (step + 1) % self.config.log_every and step + 1 != self.config.steps:
            return {}
        means = mean_over_processes({n: v / self.count for n, v in self.sums.items()})
        seconds = round(self.elapsed + time.perf_counter() - self.started, 2)
        samples = (step + 1) * self.config.batch_size
        row = {"step": step, **means, "learning_rate": rate, "samples": samples, "seconds": seconds}
        self.sums, self.count = {}, 0
        if is_main():
            append_line(self.path, json.dumps(row))
        if self.config.trackers:
            self.accelerator.log(row, step=step)
        return row

    def close(self) -> None:
        """End the trackers."""
        if self.config.trackers:
            self.accelerator.end_training()
