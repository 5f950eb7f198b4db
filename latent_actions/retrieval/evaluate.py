"""`invact encoder eval`: one table of all benchmarks of an encoder, on scenes it was not trained on.

Beside it stand the same architecture with random weights, and raw pixels: what the numbers are
worth. A benchmark whose data is missing leaves a row that says why.

<out>/results.parquet   one row a number: value, 95 % interval, chance, oracle, n (results.Row)
<out>/results.json      the same
<out>/table.txt         the same, to read
<out>/frames/           decoded clips, made once
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from invact_vla.core.errors import UserError
from invact_vla.core.files import atomic_file
from invact_vla.core.run_folder import open_run
from invact_vla.training.device import CPU, Device, stage_device
from latent_actions.encoder.encoder import EncoderConfig, InvActEncoder
from latent_actions.encoder.inputs import sprites  # noqa: F401  registers the data source
from latent_actions.encoder.inputs.clips import ClipData, ClipTable, VideoClips
from latent_actions.retrieval.baselines import BaselineConfig, load_baseline, name_of, weights_of
from latent_actions.retrieval.benchmark import Benchmark, Context, moments_of, run_benchmark
from latent_actions.retrieval.benchmarks import (
    AtomicBenchmark,
    ChiralityBenchmark,
    CommitmentBenchmark,
    KeystepBenchmark,
    LanguageBenchmark,
    SceneBiasBenchmark,
)
from latent_actions.retrieval.encoders import (
    Embed,
    EvaluatedEncoder,
    encoder_folder,
    references,
    trained,
)
from latent_actions.retrieval.protocols import Labels, gallery_levels, score_all
from latent_actions.retrieval.results import Row, format_rows, skipped, write_rows
from latent_actions.retrieval.scenes import ALONE, OWN, scene_groups
from latent_actions.video.records import Split


def _default_benchmarks() -> tuple[Benchmark, ...]:
    """Those that need the clips alone. The zero-shot ones need data sets of their own."""
    return (
        AtomicBenchmark(), KeystepBenchmark(), SceneBiasBenchmark(), LanguageBenchmark(),
        ChiralityBenchmark(), CommitmentBenchmark(),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Benchmarks of one encoder."""

    out: Path  # run folder
    encoder: Path  # run folder of its training (with its text side), or an encoder folder
    data: ClipData = field(default_factory=VideoClips)  # clips; those of `split` are used
    split: Split = "val"  # split whose clips are queries and gallery
    benchmarks: tuple[Benchmark, ...] = field(default_factory=_default_benchmarks)  # what to run
    frames: Path | None = None  # folder of decoded frames to use or fill; default: <out>/frames
    others: tuple[BaselineConfig, ...] = ()  # published encoders to show beside it
    baselines: bool = True  # score random weights and raw pixels too
    draws: int = 1000  # bootstrap draws of the intervals
    workers: int = 2  # decoding processes
    device: str = "auto"  # where networks run: auto | cpu | cuda | cuda:N | mps
    seed: int = 0  # weights of the random baseline
    overwrite: bool = False  # replace a run folder of another config

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise ValueError(f"draws must be >= 1, got {self.draws}")
        if not self.benchmarks:
            raise ValueError("benchmarks must name at least one")


def main(config: EvalConfig) -> Path:
    """Evaluate, print the table, write the rows; returns the run folder."""
    run = open_run(
        config.out, config, parents=_parents(config), overwrite=config.overwrite, seed=config.seed
    )
    if run.finished:
        return run.folder
    torch.set_num_threads(1)
    subjects, frames, rows = _subjects(config, stage_device(run, config.device))
    context = Context(
        config.data, config.split, frames=frames, folder=config.frames or run.folder / "frames",
        workers=config.workers, draws=config.draws,
    )  # fmt: skip
    for benchmark in config.benchmarks:
        rows += run_benchmark(benchmark, context, subjects)
    if all(row.value is None for row in rows):
        raise UserError(f"no benchmark could run: {rows[0].note}")
    write_rows(rows, run.folder)
    table = format_rows(rows)
    with atomic_file(run.folder / "table.txt") as temporary:
        temporary.write_text(table + "\n")
    print(table)
    run.finish(_summary(rows, subjects[0].name))
    return run.folder


def _subjects(
    config: EvalConfig, device: torch.device
) -> tuple[list[EvaluatedEncoder], int, list[Row]]:
    """The encoder and what it is compared with, the frames of a clip that all of them see, and a
    row for each of the others that could not be loaded.
    """
    shape = InvActEncoder.from_pretrained(encoder_folder(config.encoder)).config
    subjects, rows = [trained(config.encoder, device=device)], []
    if config.baselines:
        subjects += references(shape, config.seed, device)
    for name, other in _others(config).items():
        try:
            subjects.append(EvaluatedEncoder(name=name, embed=load_baseline(other, device)))
        except UserError as error:
            rows.append(skipped("loading", str(error), name))
    return subjects, shape.frames, rows


def _others(config: EvalConfig) -> dict[str, BaselineConfig]:
    """The other encoders by name; the second of a name is called "<name> 2", the third "<name> 3"."""
    names = [name_of(other) for other in config.others]
    found: dict[str, BaselineConfig] = {}
    for place, (name, other) in enumerate(zip(names, config.others, strict=True)):
        count = names[: place + 1].count(name)
        found[name if count == 1 else f"{name} {count}"] = other
    return found


def _summary(rows: list[Row], subject: str) -> dict[str, float | None]:
    """Values of one subject by benchmark, setting and measure."""
    return {
        " / ".join(filter(None, (row.benchmark, row.setting, row.measure))): row.value
        for row in rows
        if row.subject == subject
    }


def baselines(config: EncoderConfig, seed: int, device: Device = CPU) -> dict[str, Embed]:
    """What `evaluate` shows beside an encoder: random weights and pixels."""
    return {subject.name: subject.embed for subject in references(config, seed, device)}


def evaluate(embeds: dict[str, Embed], table: ClipTable, split: str, draws: int = 1000) -> dict:
    """Atomic scores of several encoders with their own scene left out, for the end of a training:
    {"encoders": {name: directions}, "levels": levels}.

    UserError if no moment of the split is seen by both views, or all moments are of one scene.
    """
    moments = moments_of(table, split)
    columns = moments.scene, moments.take, moments.moment
    for key in (OWN, ALONE):
        scene_groups(key, *columns)
    labels = Labels(verb=moments.verb, scene=moments.scene, take=moments.take)
    encoders = {
        name: score_all(embed(moments.ego), embed(moments.exo), labels, draws=draws)
        for name, embed in embeds.items()
    }
    return {"encoders": encoders, "levels": gallery_levels(labels), "split": split}


def _parents(config: EvalConfig) -> dict[str, Path]:
    weights = {
        f"{name}.{part}": path
        for name, other in _others(config).items()
        for part, path in weights_of(other).items()
    }
    return {"encoder": config.encoder, **weights, **config.data.parents()}
