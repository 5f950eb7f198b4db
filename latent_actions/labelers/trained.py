"""Labelers that train a network of their own, once, on the training pairs of the labeling run.

The network is kept in `<run>/model` beside the labels: another run can use it, and a killed one goes on.
"""

import dataclasses
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from invact_vla.core.files import atomic_folder, hash_file, hash_tree, read_json, write_json
from invact_vla.training.device import CPU, exact, place
from invact_vla.training.distributed import rank_info
from invact_vla.training.loop import LoopConfig, fit
from invact_vla.untrusted.model_config import decode_config, on_meta
from invact_vla.untrusted.torch_files import read_safetensors
from latent_actions.labelers.guard.collapse import CollapseConfig, refuse_static
from latent_actions.labelers.guard.guarded import GuardedTask, after_step, guarded_loss, measure
from latent_actions.labelers.labeler import (
    LabelerConfig,
    TrainingFrames,
    ends,
    full_batches,
    subfolder_or_self,
)
from latent_actions.labelers.laq.checkpoint import check_weights
from latent_actions.labelers.whitening import settle
from latent_actions.video.records import PairRecord

logger = logging.getLogger(__name__)

MODEL_PART = "model"  # sub-folder of a labeling run that holds the trained network
SETTLING = 50  # batches from which the moments of a trained network are taken
MEASURED = 512  # training pairs on which a trained network is measured, at most
BATCH = 64  # pairs per forward pass; fixed, so that labels never depend on the caller's batches

Config = TypeVar("Config")
Batch = Mapping[str, Tensor]


def short_loop() -> LoopConfig:
    """A training of minutes on a CPU."""
    return LoopConfig(steps=2000, batch_size=64, weight_decay=0.01, warmup_steps=50)


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How a labeler's network is trained."""

    loop: LoopConfig = field(default_factory=short_loop)  # optimization
    guard: CollapseConfig = field(default_factory=CollapseConfig)  # re-seeding and collapse

    @property
    def seed(self) -> int:
        """Of weights, batches and noise."""
        return self.loop.seed


def seeded(labeler: LabelerConfig, seed: int) -> LabelerConfig:
    """The labeler with this seed in every training of a network."""
    parts = {part.name: getattr(labeler, part.name) for part in dataclasses.fields(labeler)}
    fits = {name: part for name, part in parts.items() if isinstance(part, FitConfig)}
    return dataclasses.replace(
        labeler,
        **{
            k: dataclasses.replace(f, loop=dataclasses.replace(f.loop, seed=seed))
            for k, f in fits.items()
        },
    )


def training_ends(
    training: TrainingFrames, max_static: float
) -> tuple[np.ndarray, list[PairRecord]]:
    """Both frames of all training pairs, uint8 (N, 2, H, W, 3), and their records; UserError where
    hardly a pair moves."""
    frames, records = [], []
    for pairs in training():
        frames.append(ends(pairs.frames))
        records.extend(pairs.records)
    found = np.concatenate(frames)
    refuse_static(found, max_static)
    return found, records


def draw(
    arrays: Mapping[str, np.ndarray], size: int, seed: int
) -> Callable[[int], dict[str, Tensor]]:
    """step -> this rank's part of `size` rows of arrays of equal length, drawn with replacement."""
    count, info = len(next(iter(arrays.values()))), rank_info()

    def batch_at(step: int) -> dict[str, Tensor]:
        rows = np.sort(np.random.default_rng([seed, step]).integers(count, size=size))
        rows = rows[info.slice(size)]
        return {name: torch.from_numpy(np.array(array[rows])) for name, array in arrays.items()}

    return batch_at


def fit_guarded(
    model: Any,
    positions: int,
    codes: int,
    arrays: Mapping[str, np.ndarray],
    config: FitConfig,
    folder: Path,
    name: str,
    device: torch.device = CPU,
) -> None:
    """Train a LatentActionModel (guarded.py) in place, under the guard, on rows of `arrays`. Progress is
    kept in `folder`/training/`name`; what the model then makes of some of the rows, and why its codes
    should not be used, in `folder`/trained_`name`.json."""
    task = GuardedTask(model, config.guard, positions, codes, config.loop.steps, config.seed)
    loop = config.loop
    batch_at = draw(arrays, loop.batch_size, config.seed)
    part = folder / "training" / name
    part.mkdir(parents=True, exist_ok=True)
    fit(task, guarded_loss, batch_at, loop, part, after_step, f"train {name}", device)
    drawn = (place(batch_at(step), device) for step in range(SETTLING))
    settle(model, drawn, model.training_step)
    count = len(next(iter(arrays.values())))
    rows = np.unique(np.linspace(0, count - 1, min(count, MEASURED)).astype(int))
    batches = [
        {k: torch.from_numpy(np.array(array[some])).to(device) for k, array in arrays.items()}
        for some in np.split(rows, range(BATCH, len(rows), BATCH))
    ]
    report = measure(model, batches, codes, config.seed)
    tell(folder, name, report.lines(), report.to_json())


def tell(folder: Path, name: str, lines: Sequence[str], report: Mapping[str, Any]) -> None:
    """Log how a network came out of its training, its `problems` as warnings, and keep the report in
    `folder`/trained_`name`.json."""
    for line in lines:
        logger.info("%s, on training pairs: %s", name, line)
    for problem in report["problems"]:
        logger.warning("%s: %s", name, problem)
    write_json(folder / f"trained_{name}.json", report)


def save_network(model: nn.Module, config: Any, folder: Path) -> None:
    """Write config.json and model.safetensors, atomically as a folder."""
    with atomic_folder(folder) as temporary:
        write_json(temporary / "config.json", dataclasses.asdict(config))
        weights = {name: tensor.contiguous().cpu() for name, tensor in model.state_dict().items()}
        save_file(weights, temporary / "model.safetensors")


def load_network(
    build: Callable[[Config], nn.Module], kind: type[Config], folder: Path, device: torch.device
) -> Any:
    """What save_network wrote, in eval mode; UserError for anything else."""
    file = folder / "config.json"
    config = decode_config(kind, read_json(file), f"{file} is not a {kind.__name__}")
    model = on_meta(lambda: build(config), str(file))
    weights = read_safetensors(folder / "model.safetensors", device)
    check_weights(model.state_dict(), weights, folder / "model.safetensors")
    model.load_state_dict(weights, assign=True)
    return model.eval()


def trained_part(trained: Path | None, folder: Path, train: Callable[[Path], None]) -> Path:
    """Folder of the network: that in `trained` (its folder or a labeling run), that of an earlier start
    in the labeling run `folder`, or a new one that `train` writes there."""
    if trained is not None:
        return subfolder_or_self(trained, MODEL_PART)
    place = folder / MODEL_PART
    if not (place / "config.json").exists():
        train(place)
        shutil.rmtree(folder / "training", ignore_errors=True)
    return place


class CodeLabeler:
    """A network that gives codes itself. prepare: uint8 (B, 2, H, W, 3) -> its input; the network has
    `codes` and lies in `folder`, a folder or a file."""

    n_frames = 2

    def __init__(
        self,
        name: str,
        model: Any,
        size: tuple[int, int],
        folder: Path,
        prepare: Callable[[np.ndarray], Tensor],
        device: torch.device = CPU,
    ) -> None:
        self.name, self.model, self.prepare, self.device = name, model, prepare, device
        self.code_length, self.codebook_size = size
        self.hash = hash_file(folder) if folder.is_file() else hash_tree(folder)

    @exact()
    @torch.no_grad()
    def codes(self, frames: np.ndarray, pairs: Sequence[PairRecord] | None = None) -> np.ndarray:
        """Codes of the first and the last frame."""
        found = [np.zeros((0, self.code_length), np.int64)]
        for batch, count in full_batches(ends(frames), BATCH, self.device):
            codes = self.model.codes(self.prepare(batch).to(self.device))
            found.append(codes[:count].cpu().numpy())
        return np.concatenate(found)
