"""`invact encoder eval`: one table of all benchmarks of an encoder, on scenes it was not trained on.

Beside it stand the same architecture with random weights, raw pixels, and differences of frames: what
the numbers are worth. A benchmark whose data is missing leaves a row that says why.

<out>/results.parquet   one row per number: value, 95 % interval, chance, oracle, n (results.Row)
<out>/results.json      the same
<out>/table.txt         the same, to read
<out>/frames/           decoded clips, made once
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from invact_vla.core.errors import UserError
from invact_vla.core.files import atomic_file
from invact_vla.core.run_folder import open_run
from invact_vla.core.text_table import text_table
from invact_vla.training.device import stage_device
from latent_actions.encoder.encoder import InvActEncoder
from latent_actions.encoder.encoder_config import EncoderConfig
from latent_actions.encoder.inputs import sprites  # noqa: F401  registers the data source
from latent_actions.encoder.inputs.clips import ClipData, ClipTable, VideoClips
from latent_actions.retrieval.baselines import BaselineConfig, load_baseline, name_of, weights_of
from latent_actions.retrieval.benchmark import (
    ALONE,
    OWN,
    Benchmark,
    Context,
    moments_of,
    run_benchmark,
)
from latent_actions.retrieval.benchmarks import (
    AtomicBenchmark,
    ChiralityBenchmark,
    CommitmentBenchmark,
    KeystepBenchmark,
    LanguageBenchmark,
    SceneBiasBenchmark,
)
from latent_actions.retrieval.encoders import (
    EvaluatedEncoder,
    difference_embedding,
    duration_alone,
    encoder_folder,
    references,
    trained,
)
from latent_actions.retrieval.metric import (
    AVERAGES,
    DIRECTION_NAMES,
    DIRECTIONS,
    bounds_of,
    precisions,
)
from latent_actions.retrieval.results import Row, Scorer, format_rows, skipped, write_rows
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
    baselines: bool = True  # score random weights, raw pixels, their differences, and durations too
    # of the durations of clips beside all vectors (encoder/duration.py); none: the encoder's own weight
    duration_weight: float | None = None
    draws: int = 1000  # bootstrap draws of the intervals
    workers: int = 2  # decoding processes
    device: str = "auto"  # where networks run: auto | cpu | cuda | cuda:N | mps
    seed: int = 0  # weights of the random baseline
    overwrite: bool = False  # replace a run folder of another config

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise ValueError(f"draws must be >= 1, got {self.draws}")
        if self.duration_weight is not None:
            EncoderConfig(duration_weight=self.duration_weight)  # checks it
        if not self.benchmarks:
            raise ValueError("benchmarks must name at least one")


def main(config: EvalConfig) -> Path:
    """Evaluate, print the table, write the rows; returns the run folder."""
    run = open_run(config.out, config, _parents(config), config.overwrite, config.seed)
    if run.finished:
        return run.folder
    torch.set_num_threads(1)
    encoders, frames, rows = _encoders(config, stage_device(run, config.device))
    context = Context(
        config.data, config.split, frames=frames, folder=config.frames or run.folder / "frames",
        workers=config.workers, draws=config.draws,
    )  # fmt: skip
    for benchmark in config.benchmarks:
        rows += run_benchmark(benchmark, context, encoders)
    if all(row.value is None for row in rows):
        raise UserError(f"no benchmark could run: {rows[0].note}")
    write_rows(rows, run.folder)
    table = format_rows(rows)
    with atomic_file(run.folder / "table.txt") as temporary:
        temporary.write_text(table + "\n")
    print(table)
    run.finish(
        {
            " / ".join(filter(None, (row.benchmark, row.setting, row.measure))): row.value
            for row in rows
            if row.encoder == encoders[0].name
        }
    )
    return run.folder


def _encoders(
    config: EvalConfig, device: torch.device
) -> tuple[list[EvaluatedEncoder], int, list[Row]]:
    """The encoder and what it is compared with, all with the same weight of durations, the frames per
    clip that all of them see, and a row for each of the others that could not be loaded."""
    shape = InvActEncoder.from_pretrained(encoder_folder(config.encoder)).config
    encoders, rows = [trained(config.encoder, device=device)], []
    if config.baselines:
        encoders += references(shape, config.seed, device)
        encoders.append(EvaluatedEncoder(name="differences", embed=difference_embedding))
    for name, other in _others(config).items():
        try:
            encoders.append(EvaluatedEncoder(name=name, embed=load_baseline(other, device)))
        except UserError as error:
            rows.append(skipped("loading", str(error), name))
    weight = config.duration_weight
    weight = shape.duration_weight if weight is None else weight
    encoders = [replace(encoder, duration_weight=weight) for encoder in encoders]
    if config.baselines and weight:
        encoders.append(duration_alone(weight))
    return encoders, shape.frames, rows


def _others(config: EvalConfig) -> dict[str, BaselineConfig]:
    """The other encoders by name; the second of a name is called "<name> 2", the third "<name> 3"."""
    found: dict[str, BaselineConfig] = {}
    for other in config.others:
        count = sum(name_of(known) == name_of(other) for known in found.values())
        found[f"{name_of(other)} {count + 1}" if count else name_of(other)] = other
    return found


def _parents(config: EvalConfig) -> dict[str, Path]:
    weights = {
        f"{name}.{part}": path
        for name, other in _others(config).items()
        for part, path in weights_of(other).items()
    }
    return {"encoder": config.encoder, **weights, **config.data.parents()}


def evaluate(
    encoders: Sequence[EvaluatedEncoder], table: ClipTable, split: str, draws: int = 1000
) -> dict[str, Any]:
    """P@10 of several encoders in all directions, for the end of a training.

    {"encoders": {name: {direction: {p_at_10, low, high (percent), n}}}, "levels": bounds, "split"}:
    the query's own scene is left out, in directions named "... same_moment" its moment alone.
    UserError if no moment of the split is seen by both views, or all moments are of one scene."""
    moments = moments_of(table, split)
    groups = {"": moments.groups(OWN), " same_moment": moments.groups(ALONE)}
    found: dict[str, Any] = {encoder.name: {} for encoder in encoders}
    for encoder in encoders:
        score = Scorer("atomic", encoder.name, draws)
        views = (
            encoder.timed(encoder.embed(moments.ego), moments.ego_seconds),
            encoder.timed(encoder.embed(moments.exo), moments.exo_seconds),
        )
        for suffix, given in groups.items():
            names = ("g-x", "x-g", "cross_view") if suffix else (*DIRECTIONS, *AVERAGES)
            scores = precisions(*views, moments.verb, given)
            for name in names:
                row = score.row("P@10", suffix, scores[name], moments.take)
                found[encoder.name][name + suffix] = {
                    "p_at_10": row.value, "low": row.low, "high": row.high, "n": row.n
                }  # fmt: skip
    levels = {
        name: asdict(bounds_of(moments.verb, given))
        for name, given in zip(("scene", "same_moment"), groups.values(), strict=True)
    }
    return {"encoders": found, "levels": levels, "split": split}


def format_scores(result: dict[str, Any]) -> str:
    """The result of `evaluate` as a text table; chance, oracle and n below."""
    names, encoders = DIRECTION_NAMES, result["encoders"].items()
    lines = [[e, *(f"{scores[n]['p_at_10']:.2f}" for n in names)] for e, scores in encoders]
    table = text_table(("P@10 (%)", *names.values()), lines, left=(0,))
    level = result["levels"]["scene"]
    return (
        f"{table}\nchance {level['chance']:.2f}, oracle {level['oracle']:.2f}, "
        f"answerable {level['answerable']:.1f} %, "
        f"{level['n']} queries, {level['groups']} scenes (the query's scene left out)"
    )
