"""What a checkpoint's post-training left beside it: its demonstrations, and how long it trained."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import draccus

from invact_vla.config.yaml_text import read_yaml
from invact_vla.core.files import read_json
from invact_vla.data.dataset import DatasetConfig

LEAST_STEPS = 100  # fewer have barely moved the weights, whatever the data
LEAST_PASSES = 0.1  # over the samples


@dataclass(frozen=True, kw_only=True)
class Training:
    """run: its folder. demos: as its config names them, found or not; options: how it read them, as
    far as that is not the default. steps, batch_size, samples: None where it does not say."""

    run: Path
    demos: Path | None
    options: dict[str, Any]
    steps: int | None
    batch_size: int | None
    samples: int | None

    @property
    def barely(self) -> str:
        """In words why this is hardly a training; "" if it is one, or nothing is known."""
        if self.steps is None:
            return ""
        words = f"{self.steps} steps"
        if self.batch_size:
            words += f" of {self.batch_size} samples"
        if self.steps < LEAST_STEPS:
            return words
        if self.batch_size and self.samples:
            passes = self.steps * self.batch_size / self.samples
            if passes < LEAST_PASSES:
                return f"{words}, {passes:.2f} passes over {self.samples} samples"
        return ""


def training_of(checkpoint: Path) -> Training | None:
    """The post-training that made a checkpoint folder; None if it lies in no run folder."""
    run = checkpoint.resolve().parent
    if not ((run / "provenance.json").is_file() and (run / "config.yaml").is_file()):
        return None
    config: Any = read_yaml(run / "config.yaml")
    if not isinstance(config, dict):
        return None
    inputs = read_json(run / "provenance.json").get("inputs", {})
    summary = read_json(run / "summary.json") if (run / "summary.json").is_file() else {}
    loop = config.get("loop") or {}
    named = _named_demos(config) or (inputs.get("demos") or {}).get("path")
    return Training(
        run=run,
        demos=_found(Path(named), run) if named else None,
        options=options_of(config.get("data")),
        steps=loop.get("steps"),
        batch_size=loop.get("batch_size"),
        samples=summary.get("samples"),
    )


def _named_demos(config: dict[str, Any]) -> str | None:
    """The path of the demonstrations in a post-training's config."""
    demos, data = config.get("demos"), config.get("data")
    if isinstance(demos, str):
        return demos
    return data.get("path") if isinstance(data, dict) else None


def options_of(data: Any) -> dict[str, Any]:
    """What a config's `data` says besides the path, without defaults."""
    usual = draccus.encode(DatasetConfig())
    stated = data if isinstance(data, dict) else {}
    return {k: v for k, v in stated.items() if k != "path" and k in usual and v != usual[k]}


def _found(path: Path, run: Path) -> Path:
    """A relative path as seen from here, or from a folder that holds the run, where it was typed."""
    places = [path, *(folder / path for folder in run.parents)]
    return next((place for place in places if place.exists()), path)
