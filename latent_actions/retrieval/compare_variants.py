"""The variants of `invact encoder compare`: what each one's runs are, and whether they are comparable.

A variant is one recipe, a member of it one run of that recipe (one seed). Trained variants must have
read the same number of frames, and are matched if steps, batch size and parameters are equal.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from invact_vla.config.yaml_text import read_yaml
from invact_vla.core.errors import UserError
from invact_vla.core.run_folder import artifact_hash
from invact_vla.untrusted.torch_files import stored_shapes
from latent_actions.encoder.encoder import InvActEncoder
from latent_actions.encoder.encoder_config import EncoderConfig
from latent_actions.retrieval.baselines import BaselineConfig, load_baseline, weights_of
from latent_actions.retrieval.encoders import EvaluatedEncoder, pixel_embedding, references, trained

RANDOM, PIXELS = "random_weights", "pixels"  # names of the control variants
SAME_SIZE = 0.02  # parameters that differ by no more than this share count as equal


@dataclass(frozen=True, kw_only=True)
class Member:
    """One run of a variant. steps, batch_size, parameters: None where they are not known."""

    load: Callable[[str, torch.device], EvaluatedEncoder]  # name, device -> the encoder
    shape: EncoderConfig | None = None  # of an encoder of `invact encoder train`
    seed: int | None = None  # of its training
    steps: int | None = None  # optimizer steps
    batch_size: int | None = None  # clips per step
    parameters: int | None = None


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A recipe with its runs."""

    name: str
    members: tuple[Member, ...]

    @property
    def steps(self) -> int | None:
        return self.members[0].steps

    @property
    def parameters(self) -> int | None:
        return self.members[0].parameters


def trained_variant(name: str, folders: Sequence[Path]) -> Variant:
    """A variant of `invact encoder train`. UserError if a run is unfinished, no such run, or has the
    seed of another run of the variant, which would say nothing about other seeds."""
    members = tuple(_trained_member(name, folder) for folder in folders)
    seeds = [member.seed for member in members]
    if len(set(seeds)) < len(seeds):
        raise UserError(f"variant {name}: expected runs of different seeds, got the seeds {seeds}")
    return Variant(name=name, members=members)


def _trained_member(name: str, folder: Path) -> Member:
    try:
        artifact_hash(folder)
    except UserError as error:
        raise UserError(f"variant {name}: {error}") from error
    config = _training_config(folder)
    if not (folder / "encoder").is_dir() or "steps" not in config.get("loop", {}):
        raise UserError(
            f"variant {name}: {folder} is no run of `invact encoder train`: expected config.yaml with "
            "the loop, and encoder/"
        )
    encoder = InvActEncoder.from_pretrained(folder / "encoder")
    return Member(
        load=lambda name, device: trained(folder, name, device), shape=encoder.config,
        seed=config["seed"], steps=config["loop"]["steps"],
        batch_size=config["loop"]["batch_size"], parameters=encoder.size,
    )  # fmt: skip


def baseline_variant(name: str, configs: Sequence[BaselineConfig]) -> Variant:
    """A variant of registered baselines. UserError if one has no weights."""
    return Variant(name=name, members=tuple(map(_baseline_member, configs)))


def _baseline_member(config: BaselineConfig) -> Member:
    folder = next(iter(weights_of(config).values()), None)
    loop = _training_config(folder).get("loop", {}) if folder else {}
    return Member(
        load=lambda name, device: EvaluatedEncoder(name=name, embed=load_baseline(config, device)),
        steps=loop.get("steps"),
        batch_size=loop.get("batch_size"),
        parameters=_stored_numbers(folder) if folder else None,
    )


def control_variants(
    shape: EncoderConfig, seeds: Sequence[int], *, random: bool, pixels: bool
) -> list[Variant]:
    """Random weights, a member per seed, and raw pixels."""
    parameters = InvActEncoder(shape).size

    def untrained(seed: int) -> Member:
        def load(name: str, device: torch.device) -> EvaluatedEncoder:
            return replace(references(shape, seed, device)[0], name=name)

        return Member(load=load, seed=seed, steps=0, parameters=parameters)

    raw = Member(load=lambda name, device: EvaluatedEncoder(name=name, embed=pixel_embedding))
    kept = {RANDOM: map(untrained, seeds) if random else (), PIXELS: (raw,) if pixels else ()}
    variants = [Variant(name=name, members=tuple(members)) for name, members in kept.items()]
    return [variant for variant in variants if variant.members]


def common_frames(variants: Sequence[Variant]) -> int:
    """Frames T of a clip that all trained variants read. UserError if they differ."""
    read = {v.name: {m.shape.frames for m in v.members if m.shape is not None} for v in variants}
    counts = set().union(*read.values())
    if len(counts) > 1:
        each = ", ".join(f"{n} {' and '.join(map(str, sorted(c)))}" for n, c in read.items() if c)
        raise UserError(
            f"variants read different numbers of frames of a clip ({each}): they would not see the same "
            "clips; train them with the same model.frames"
        )
    return counts.pop()


def unmatched(variants: Sequence[Variant], reference: str) -> list[str]:
    """How trained variants differ from the reference in what a comparison should hold equal, a sentence
    each."""
    base = next(variant for variant in variants if variant.name == reference).members[0]
    found: dict[str, None] = {}
    for variant in variants:
        for member in variant.members:
            for what in ("steps", "batch_size"):
                ours, theirs = getattr(base, what), getattr(member, what)
                if ours != theirs:
                    found[f"{what}: {variant.name} {theirs}, {reference} {ours}"] = None
            theirs, ours = (m.shape.duration_weight if m.shape else 0.0 for m in (member, base))
            if ours != theirs:
                found[f"duration_weight: {variant.name} {theirs:g}, {reference} {ours:g}"] = None
            ours, theirs = base.parameters or 0, member.parameters or 0
            if abs(theirs - ours) > SAME_SIZE * ours:
                found[f"parameters: {variant.name} {theirs:,}, {reference} {ours:,}"] = None
    return list(found)


def _training_config(folder: Path) -> Mapping[str, Any]:
    """The config of the run whose product a folder is, or {} where no run made it."""
    path = folder / "config.yaml"
    loaded = read_yaml(path) if path.is_file() else None
    return loaded if isinstance(loaded, dict) else {}


def _stored_numbers(folder: Path) -> int | None:
    """Numbers in the model.safetensors of a run or folder, from its header; None without one."""
    places = [folder / part / "model.safetensors" for part in ("", "model", "encoder")]
    path = next((path for path in places if path.is_file()), None)
    return None if path is None else sum(map(math.prod, stored_shapes(path).values()))
