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
        self.path, self.config = folder / "metrics.jsonl", config
        path = self.path
        self.accelerator = accelerator
        if config.trackers:
            start_trackers(accelerator, folder)
        self.sums: dict[str, float] = {}
        self.count, self.elapsed = 0, 0.0
        if path.exists() and is_main():
            kept = [r for r in map(json.loads, _whole_lines(path)) if r.get("step", -1) < first]
            with atomic_file(path) as temporary:
                temporary.write_text("".join(json.dumps(r) + "\n" for r in kept))
            self.elapsed = kept[-1].get("seconds", 0.0) if kept else 0.0
        self.started = time.perf_counter()

    def add(
        self,
        step: int,
        rate: float,
        loss: Tensor,
        norm: Tensor | None,
        metrics: Mapping[str, float | Tensor],
    ) -> dict[str, float]:
        """Collect one step; returns the row when one is due, else an empty dict."""
        values = {"loss": loss, "gradient_norm": norm, **metrics}
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + _number(value)
        self.count += 1
        if (step + 1) % self.config.log_every and step + 1 != self.config.steps:
            return {}
        means = mean_over_processes({n: v / self.count for n, v in self.sums.items()})
        row = {"step": step, **means}
        row["learning_rate"] = rate
        row["samples"] = (step + 1) * self.config.batch_size
        row["seconds"] = round(self.elapsed + time.perf_counter() - self.started, 2)
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


def start_trackers(accelerator: Any, folder: Path) -> None:
    """Start the trackers that accelerate was given; a missing package is a UserError."""
    accelerator.project_configuration.logging_dir = str(folder)
    try:
        accelerator.init_trackers(folder.name)
    except (ImportError, ValueError) as error:
        raise UserError(f"loop.trackers: {error}: install the tracker's package") from error


def _whole_lines(path: Path) -> list[str]:
    """Lines that ended with a newline: a killed writer may leave a torn last one."""
    return [line for line in path.read_text().split("\n")[:-1] if line]
