"""`invact encoder compare`: training recipes side by side, several seeds each, on the same clips.

<out>/compare.parquet   one row per number of a variant (compare_stats.CompareRow)
<out>/compare.json      the same, with the notes
<out>/table.txt         the tables, to read; also printed
<out>/table.md          the same in Markdown
<out>/index.html        the page: means with intervals and seeds, tables, the committed patches
<out>/parts/            what was measured of each run, kept so that a killed comparison continues
<out>/frames/           decoded clips, made once

P@10 with the query's scene left out, as `invact encoder eval` has it. Its intervals are over takes
and seeds; other measures have their seeds' range alone.
"""

import logging
import re
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from invact_vla.core.errors import UserError
from invact_vla.core.files import atomic_file, read_json, write_json
from invact_vla.core.run_folder import open_run
from invact_vla.training.device import stage_device
from latent_actions.encoder.inputs import sprites  # noqa: F401  registers the data source
from latent_actions.encoder.inputs.clips import ClipData, VideoClips
from latent_actions.retrieval.baselines import BaselineConfig, weights_of
from latent_actions.retrieval.benchmark import OWN, Benchmark, Context, run_benchmark
from latent_actions.retrieval.benchmarks import (
    ChiralityBenchmark,
    CommitmentBenchmark,
    SceneBiasBenchmark,
)
from latent_actions.retrieval.compare_stats import (
    PRECISION,
    CompareRow,
    against,
    estimates_of,
    write_rows,
)
from latent_actions.retrieval.compare_tables import (
    has_headroom,
    markdown,
    plain_text,
    tables,
    write_compare_page,
)
from latent_actions.retrieval.compare_variants import (
    PIXELS,
    RANDOM,
    Variant,
    baseline_variant,
    common_frames,
    control_variants,
    trained_variant,
    unmatched,
)
from latent_actions.retrieval.encoders import EvaluatedEncoder
from latent_actions.retrieval.metric import AVERAGES, DIRECTIONS, bounds_of, precisions
from latent_actions.retrieval.results import OVERALL, Row
from latent_actions.video.records import Split

logger = logging.getLogger(__name__)
Part = dict[str, Any]  # of one run: {"scores": {direction: [per query]}, "rows": [Row as dict]}
MEASURES = (*AVERAGES, *DIRECTIONS)


def _default_measures() -> tuple[Benchmark, ...]:
    return ChiralityBenchmark(frame_averaged=False), SceneBiasBenchmark(), CommitmentBenchmark()


@dataclass(frozen=True, kw_only=True)
class CompareEncodersConfig:
    """Which variants to compare, and on what."""

    out: Path  # run folder
    variants: dict[str, tuple[Path, ...]]  # name -> runs of `invact encoder train`, one per seed
    reference: str  # name of the variant that all others are compared with
    # name -> published or separately trained encoders, one per seed
    baselines: dict[str, tuple[BaselineConfig, ...]] = field(default_factory=dict)  # see above
    random: bool = True  # the reference's architecture with random weights, as many seeds
    pixels: bool = True  # raw pixels
    matched: bool = True  # refuse variants that differ in steps, batch size or parameters
    data: ClipData = field(default_factory=VideoClips)  # clips; those of `split` are used
    split: Split = "val"  # split whose clips are queries and gallery
    measures: tuple[Benchmark, ...] = field(default_factory=_default_measures)  # besides P@10
    frames: Path | None = None  # folder of decoded frames to use or fill; default: <out>/frames
    draws: int = 2000  # bootstrap draws of the intervals
    workers: int = 2  # decoding processes
    device: str = "auto"  # where networks run: auto | cpu | cuda | cuda:N | mps
    seed: int = 0  # of the bootstrap; random weights have the seeds from it on
    overwrite: bool = False  # replace a run folder of another config

    def __post_init__(self) -> None:
        names = [*self.variants, *self.baselines]
        if self.reference not in self.variants:
            known = list(self.variants)
            raise ValueError(f"reference must be one of {known}, got {self.reference!r}")
        if len({*names, RANDOM, PIXELS}) < len(names) + 2:
            raise ValueError(
                f"names of variants must differ, also from {RANDOM}, {PIXELS}: {names}"
            )
        wrong = [name for name in names if not re.fullmatch(r"[\w.-]+", name)]
        if wrong:
            raise ValueError(f"names of variants are of letters, digits, _ . and -, got {wrong}")
        empty = [name for name, given in {**self.variants, **self.baselines}.items() if not given]
        if empty:
            raise ValueError(f"every variant needs at least one run, got none for {empty}")
        if self.draws < 1:
            raise ValueError(f"draws must be >= 1, got {self.draws}")


def main(config: CompareEncodersConfig) -> Path:
    """Compare, print the tables, write the page; returns the run folder."""
    variants, notes = read_variants(config)
    run = open_run(config.out, config, _parents(config), config.overwrite, config.seed)
    if run.finished:
        logger.info("%s: already finished", run.folder)
        return run.folder
    torch.set_num_threads(1)
    context = Context(
        config.data, config.split, frames=common_frames(variants),
        folder=config.frames or run.folder / "frames", workers=config.workers, draws=config.draws,
    )  # fmt: skip
    device = stage_device(run, config.device)
    parts = _measure_all(variants, context, config.measures, run.folder / "parts", device)
    rows = [*_precision_rows(config, variants, parts, context), *_measure_rows(variants, parts)]
    notes += _absent(parts, rows)
    if not has_headroom(rows):
        notes.insert(0, _no_headroom(rows))
    write_rows(rows, notes, config.reference, run.folder)
    shown = tables(rows, config.reference)
    picture = config.variants[config.reference][0] / "committed.png"
    write_compare_page(run.folder / "index.html", rows, config.reference, shown, notes, picture)
    text = "\n\n".join([plain_text(shown), *notes])
    for name, content in (("table.txt", text + "\n"), ("table.md", markdown(shown))):
        with atomic_file(run.folder / name) as temporary:
            temporary.write_text(content)
    print(text)
    run.finish({f"{r.variant} / {r.measure}": r.value for r in rows if r.benchmark == PRECISION})
    return run.folder


def read_variants(config: CompareEncodersConfig) -> tuple[list[Variant], list[str]]:
    """All variants, the reference first, and how they are not alike. UserError if they can't be
    compared, or if they are not alike though `matched` asks for it."""
    names = sorted(config.variants, key=lambda name: name != config.reference)
    variants = [trained_variant(name, config.variants[name]) for name in names]
    common_frames(variants)
    notes = [f"Not matched in {words}." for words in unmatched(variants, config.reference)]
    if notes and config.matched:
        raise UserError(
            f"variants are not alike: {' '.join(notes)} Train them alike, or give --matched false"
        )
    for note in notes:
        logger.warning(note)
    variants += [baseline_variant(name, given) for name, given in config.baselines.items()]
    shape = variants[0].members[0].shape
    assert shape is not None
    seeds = range(config.seed, config.seed + len(variants[0].members))
    variants += control_variants(shape, seeds, random=config.random, pixels=config.pixels)
    return variants, notes


def _measure_all(
    variants: list[Variant], context: Context, measures: tuple[Benchmark, ...], folder: Path,
    device: torch.device,
) -> dict[str, list[Part]]:  # fmt: skip
    """What was measured of every run of every variant; kept in `folder`, a file per run."""
    found: dict[str, list[Part]] = {variant.name: [] for variant in variants}
    members = [(variant, number) for variant in variants for number in range(len(variant.members))]
    for variant, number in tqdm(members, desc="compare", unit="run", mininterval=1.0):
        path = folder / f"{variant.name}_{number}.json"
        if not path.exists():
            encoder = variant.members[number].load(f"{variant.name} {number}", device)
            write_json(path, _measure(encoder, context, measures))
        found[variant.name].append(read_json(path))
    return found


def _measure(encoder: EvaluatedEncoder, context: Context, measures: tuple[Benchmark, ...]) -> Part:
    """One run: P@10 of every query in all directions, and the rows of other benchmarks."""
    moments = context.moments
    scores = precisions(*context.compared(encoder), moments.verb, moments.groups(OWN))
    rows = [row for bench in measures for row in run_benchmark(bench, context, [encoder])]
    context.forget(encoder)
    unnamed = []  # rows without their run's name; what stood behind the name moves to the measure
    for row in rows:
        version = "" if row.encoder == OVERALL else row.encoder.removeprefix(encoder.name)
        unnamed.append(asdict(row) | {"encoder": "", "measure": row.measure + version})
    return {"scores": {k: values.tolist() for k, values in scores.items()}, "rows": unnamed}


def _precision_rows(
    config: CompareEncodersConfig, variants: list[Variant], parts: dict[str, list[Part]],
    context: Context,
) -> list[CompareRow]:  # fmt: skip
    """P@10 with intervals, all variants of a measure one after the other."""
    moments, rows = context.moments, []
    bounds = bounds_of(moments.verb, moments.groups(OWN))
    for measure in MEASURES:
        scores = {n: np.array([part["scores"][measure] for part in p]) for n, p in parts.items()}
        found = estimates_of(scores, moments.take, config.draws, config.seed)
        for variant in variants:
            own, base = found[variant.name], found[config.reference]
            versus = {} if own is base else against(base, own)
            rows.append(
                CompareRow(
                    variant=variant.name, benchmark=PRECISION, measure=measure, setting="scene left out",
                    value=own.value, seeds=tuple((100 * scores[variant.name].mean(axis=1)).tolist()),
                    low=own.interval[0], high=own.interval[1], chance=bounds.chance,
                    oracle=bounds.oracle, n=bounds.n, takes=len(set(moments.take)),
                    steps=variant.steps, parameters=variant.parameters, **versus,
                )
            )  # fmt: skip
    return rows


def _measure_rows(variants: list[Variant], parts: dict[str, list[Part]]) -> list[CompareRow]:
    """Means over seeds of the other benchmarks' rows, all variants of a measure one after the other."""
    found: dict[tuple[str, str, str], dict[str, list[Row]]] = {}
    for variant in variants:
        rows = (Row(**values) for part in parts[variant.name] for values in part["rows"])
        for row in rows:
            if row.value is not None:
                key = (row.benchmark, row.setting, row.measure)
                found.setdefault(key, {}).setdefault(variant.name, []).append(row)
    # a mean over some of the runs would be one over the lucky ones
    return [
        _mean_row(variant, given[variant.name])
        for given in found.values()
        for variant in variants
        if len(given.get(variant.name, ())) == len(parts[variant.name])
    ]


def _mean_row(variant: Variant, rows: list[Row]) -> CompareRow:
    values = tuple(row.value for row in rows if row.value is not None)
    chances = [row.chance for row in rows if row.chance is not None]
    first = rows[0]
    return CompareRow(
        variant=variant.name, benchmark=first.benchmark, measure=first.measure, setting=first.setting,
        value=float(np.mean(values)), seeds=values, n=first.n, takes=first.clusters,
        steps=variant.steps, parameters=variant.parameters, oracle=first.oracle,
        chance=float(np.mean(chances)) if chances else None,
    )  # fmt: skip


def _absent(parts: dict[str, list[Part]], rows: list[CompareRow]) -> list[str]:
    """Why a benchmark gave no number at all, and which measures only some runs of a variant have."""
    present = {row.benchmark for row in rows}
    reasons = {
        f"{row['benchmark']} is left out: {row['note']}.": None
        for runs in parts.values()
        for part in runs
        for row in part["rows"]
        if row["benchmark"] not in present
    }
    for variant, runs in parts.items():
        rows_of = (row for part in runs for row in part["rows"] if row["value"] is not None)
        known = Counter((row["measure"], row["setting"]) for row in rows_of)
        for (measure, _), count in known.items():
            if 0 < count < len(runs):
                some = f"{count} of {len(runs)} runs have it"
                reasons[f"{measure} of {variant} is left out: {some}."] = None
    return list(reasons)


def _no_headroom(rows: list[CompareRow]) -> str:
    first = next(row for row in rows if row.benchmark == PRECISION)
    return (
        f"These clips cannot tell encoders apart: a random order and a perfect one both have P@10 "
        f"{first.chance:.2f} % ({first.n} queries of {first.takes} takes). More clips are needed."
    )


def _parents(config: CompareEncodersConfig) -> dict[str, Path]:
    found = {f"{n}_{i}": f for n, given in config.variants.items() for i, f in enumerate(given)}
    for name, given in config.baselines.items():
        for number, baseline in enumerate(given):
            found |= {f"{name}_{number}_{k}": path for k, path in weights_of(baseline).items()}
    return {**found, **config.data.parents()}
