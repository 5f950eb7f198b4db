"""One labeler with several seeds counts once: the mean over its seeds, with intervals over videos and
seeds.

Label stores are repetitions where their run folders differ in a last number alone (`labels_0`,
`labels_1`) and so do their labelers, down to the paths of what was trained (`encoder_0`,
`encoder_1`), on the same pairs.
"""

import re
import zlib
from collections.abc import Hashable, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from latent_actions.report.action_probes import CODES, Actions
from latent_actions.report.measure import Measured
from latent_actions.report.probes import Estimate
from latent_actions.report.stores import Labeled
from latent_actions.report.usage import Usage

LAST_NUMBER = re.compile(r"_\d+$")


def over_seeds(measured: Sequence[Measured]) -> list[Measured]:
    """Repetitions as one, in the place of the first; every other store as it is."""
    groups: dict[Hashable, list[Measured]] = {}
    for number, one in enumerate(measured):
        groups.setdefault(_repeated(one.labeled) or number, []).append(one)
    found: list[Measured] = []
    for group in groups.values():
        hashes = {m.labeled.store.identity.labeler_hash for m in group}
        taken = {one.name for one in found}
        found += [_mean(group, taken)] if len(hashes) == len(group) > 1 else group
    return found


def _repeated(labeled: Labeled) -> Hashable:
    """What repetitions of a labeler share; None for what is none."""
    if labeled.folder is None or labeled.config is None:
        return None
    if not LAST_NUMBER.search(labeled.folder.name):
        return None
    folder, identity = _unnumbered(labeled.folder), labeled.store.identity
    return folder, repr(_unseeded(labeled.config.labeler)), identity.dataset_hash


def _unnumbered(path: Path) -> Path:
    return path.with_name(LAST_NUMBER.sub("", path.name)) if path.name else path


def _unseeded(config: Any) -> Any:
    """Names and values of a config without seeds, and paths without their last number."""
    if is_dataclass(config):
        names = [f.name for f in fields(config) if f.name != "seed"]
        return type(config).__name__, {name: _unseeded(getattr(config, name)) for name in names}
    return _unnumbered(config) if isinstance(config, Path) else config


def _name(first: Labeled, count: int, taken: set[str]) -> str:
    """Of `count` repetitions, by their folders without the number, or by the first one's path."""
    assert first.folder is not None
    labeler, folder = first.store.identity.labeler, _unnumbered(first.folder).name
    name = f"{labeler}{'' if folder == labeler else f' ({folder})'}, {count} seeds"
    return f"{labeler} ({first.folder}), {count} seeds" if name in taken else name


def _mean(group: Sequence[Measured], taken: set[str]) -> Measured:
    """Of repetitions; the perplexities of their positions are sorted, for positions of two seeds have
    nothing in common. taken: names that others have."""
    first = group[0].labeled
    name = _name(first, len(group), taken)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    parts = {f.name: [_sorted(getattr(m, f.name)) for m in group] for f in fields(Measured)}
    parts |= {"labeled": [replace(first, name=name)], "motion": [None], "clips": [()]}
    broken = dict.fromkeys(line for m in group for line in m.broken)
    mean = Measured(**{part: mean_of(values, rng) for part, values in parts.items()})
    return replace(mean, actions=_best_frame(mean.actions), broken=tuple(broken))


def _sorted(part: Any) -> Any:
    if not isinstance(part, Usage):
        return part
    return replace(part, perplexity=tuple(sorted(part.perplexity, key=lambda e: e.value)))


def _best_frame(actions: Actions | str) -> Actions | str:
    """The frame in which the seeds tell most, on average."""
    if isinstance(actions, str):
        return actions
    means = {frame: rows[CODES].mean.value for frame, rows in actions.scores.items()}
    return replace(actions, best=max(means, key=lambda f: np.nan_to_num(means[f], nan=-9.0)))


def mean_of(values: Sequence[Any], rng: np.random.Generator) -> Any:
    """Results of the same kind as one: estimates and floats averaged, a sentence where one is a
    sentence, and of everything else the first."""
    first = values[0]
    unlike = [v for v in values if v is None or isinstance(v, str)]
    if unlike or len(values) == 1:
        return unlike[0] if unlike else first
    if isinstance(first, Estimate):
        return _mean_estimate(values, rng)
    if is_dataclass(first):
        parts = {f.name: [getattr(v, f.name) for v in values] for f in fields(first)}
        return type(first)(**{name: mean_of(part, rng) for name, part in parts.items()})
    if isinstance(first, dict):
        shared = [key for key in first if all(key in v for v in values)]
        return {key: mean_of([v[key] for v in values], rng) for key in shared}
    if isinstance(first, tuple):
        return tuple(mean_of(part, rng) for part in zip(*values, strict=False))
    return float(np.mean(values)) if isinstance(first, float) else first


def _mean_estimate(values: Sequence[Estimate], rng: np.random.Generator) -> Estimate:
    """The mean; each draw of videos takes as many seeds as there are, drawn with replacement."""
    first, value = values[0], float(np.mean([v.value for v in values]))
    count = min(len(v.draws) for v in values)
    if not count:
        return replace(first, value=value, low=np.nan, high=np.nan, draws=np.zeros(0))
    draws = np.stack([v.draws[:count] for v in values])
    picks = rng.integers(len(values), size=draws.shape)
    mean = np.take_along_axis(draws, picks, axis=0).mean(axis=0)
    return replace(Estimate.of(value, mean, first.n, ()), clusters=first.clusters)
