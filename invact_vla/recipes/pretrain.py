"""`invact vla pretrain`: teach an OpenVLA to name the latent action of what it sees.

Input: the first frame of a pair and the clip's text; target: the codes of the pair, as tokens in unused
vocabulary rows, and EOS. After LAPA stage 2 (arxiv.org/abs/2410.11758) and UniVLA
(arxiv.org/abs/2505.06111). Any OpenVLA folder is a start: one without latent tokens is given them.
`summary.json` names the rows of the latent tokens.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import torch

from invact_vla.core.errors import UserError
from invact_vla.core.run_folder import run_of
from invact_vla.data.label_store import LabelStore, find_videos, read_labels
from invact_vla.openvla.checkpoints.checkpoint import VLACheckpoint, load_pretrained
from invact_vla.openvla.checkpoints.config_file import read_config, with_latent_tokens
from invact_vla.openvla.heads.tokens import TokensHead
from invact_vla.openvla.latent_tokens import give_latent_tokens
from invact_vla.openvla.tokenizer import added_rows
from invact_vla.recipes.latent_examples import LatentExamples, most_frequent_codes
from invact_vla.recipes.train import Task, TrainConfig, train

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(TrainConfig):
    """Latent pretraining of one variant."""

    out: Path = Path("runs/pretrain")  # folder of the run
    labels: Path = Path("runs/labels/labels_train.parquet")  # label store to learn
    held_out: Path | None = None  # label store to measure on
    videos: Path = Path("data/ssv2")  # root of the labeled videos (--pairs.source.root)


def main(config: PretrainConfig) -> Path:
    """Check, train, save, evaluate; returns the run folder."""
    return train(config, "pretrain", {"labels": run_of(config.labels)}, prepare)


def prepare(config: PretrainConfig, folder: Path, device: torch.device) -> Task:
    """Read the label stores, load the start, decode the frames."""
    store, held_out = read_stores(config)
    start, given = load_start(config, store.identity.codebook_size, device)
    modes = most_frequent_codes(store)
    training = LatentExamples(start, store, config.videos, folder / "frames.npy", modes)
    unseen = None
    if held_out is not None:
        frames = folder / "frames_held_out.npy"
        unseen = LatentExamples(start, held_out, config.videos, frames, modes)
    summary = {
        "pairs": len(store),
        "labeler": store.identity.labeler,
        "latent_token_ids": list(start.config.invact.latent_token_ids),
        "latent_token_ids_given": list(given),
    }
    head = TokensHead(start.config, start.sequences)  # whatever head the checkpoint acts with
    return Task(start, head, training, unseen, summary)


def read_stores(config: PretrainConfig) -> tuple[LabelStore, LabelStore | None]:
    """The label stores of training and of evaluation, checked against each other, the model's config
    and the videos before anything large is read. UserError names what does not fit."""
    store = read_labels(config.labels)
    identity = store.identity
    held_out = None
    if config.held_out is not None:
        held_out = read_labels(
            config.held_out,
            labeler_hash=identity.labeler_hash,
            codebook_size=identity.codebook_size,
            code_length=identity.code_length,
        )
        _check_apart(config, store, held_out)
    for path, part in ((config.labels, store), (config.held_out, held_out)):
        if part is not None and not len(part):
            raise UserError(f"{path} holds no pairs: label a split that has clips")
    model = read_config(config.model)
    if model.invact.proprio_dim:
        raise UserError(
            f"{config.model} reads the robot's state, which human video does not have: start "
            "latent pretraining from a checkpoint without a state token"
        )
    with_latent_tokens(model, identity.codebook_size, added_rows(config.model))
    for part in (store, held_out):
        if part is not None:
            find_videos(part, config.videos)
    return store, held_out


def _check_apart(config: PretrainConfig, store: LabelStore, held_out: LabelStore) -> None:
    """UserError if a held-out pair is a training pair."""
    pairs, of_held_out = (
        set(zip(part.video_key, part.frame.tolist(), part.frame_end.tolist(), strict=True))
        for part in (store, held_out)
    )
    shared = len(pairs & of_held_out)
    if shared:
        raise UserError(
            f"{shared} of {len(held_out)} pairs of held_out {config.held_out} are in labels "
            f"{config.labels} too: measure on another split, such as labels_val.parquet"
        )


def load_start(
    config: PretrainConfig, codebook_size: int, device: torch.device
) -> tuple[VLACheckpoint, tuple[int, ...]]:
    """The checkpoint with latent tokens for the whole codebook, and the rows just given to it."""
    start = load_pretrained(config.model, dtype=config.dtype, device=device)
    given = give_latent_tokens(start.model, codebook_size, config.seed, added_rows(config.model))
    if given:
        logger.info(
            "%s had %d latent tokens, the labels have %d codes: gave it vocabulary rows %d..%d (%d)",
            config.model, len(start.config.invact.latent_token_ids) - len(given), codebook_size,
            given[0], given[-1], len(given),
        )  # fmt: skip
    return start, given
