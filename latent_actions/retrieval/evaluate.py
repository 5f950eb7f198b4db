"""`invact encoder eval`: precision@10 of an encoder on scenes that it was not trained on.

Beside it stand the same architecture with random weights, and raw pixels: what the numbers are
worth. Writes retrieval.json.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from invact_vla.errors import UserError
from invact_vla.training.files import write_json
from invact_vla.training.run_folder import open_run
from latent_actions.invact import sprites  # noqa: F401  registers the data source
from latent_actions.invact.clips import ClipData, ClipTable, VideoClips, pair_views
from latent_actions.invact.encoder import EncoderConfig, InvActEncoder
from latent_actions.retrieval.protocols import Gallery, format_table, gallery_levels, score_all
from latent_actions.video.records import Split

logger = logging.getLogger(__name__)
Embed = Callable[[np.ndarray], np.ndarray]
_PIXEL_GRID = 8  # side of the pictures that the pixel baseline compares


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Retrieval evaluation of one encoder."""

    out: Path  # run folder
    encoder: Path  # encoder folder, or the run folder of its training
    data: ClipData = field(default_factory=VideoClips)  # clips; those of `split` are used
    split: Split = "val"  # split whose clips are queries and gallery
    frames: Path | None = None  # folder of decoded frames to use or fill; default: <out>/frames
    baselines: bool = True  # score random weights and raw pixels too
    draws: int = 1000  # bootstrap draws of the intervals
    workers: int = 2  # decoding processes
    seed: int = 0  # weights of the random baseline
    overwrite: bool = False  # replace a run folder of another config

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise ValueError(f"draws must be >= 1, got {self.draws}")


def main(config: EvalConfig) -> Path:
    """Evaluate, print the table, write retrieval.json; returns the run folder."""
    run = open_run(
        config.out, config, parents=_parents(config), overwrite=config.overwrite, seed=config.seed
    )
    if run.finished:
        return run.folder
    torch.set_num_threads(1)
    encoder = InvActEncoder.from_pretrained(encoder_folder(config.encoder))
    store = config.frames or run.folder / "frames"
    table = config.data.table(encoder.config.frames, store, config.workers, (config.split,))
    rows: dict[str, Embed] = {"encoder": encoder.embed}
    if config.baselines:
        rows |= baselines(encoder.config, config.seed)
    result = evaluate(rows, table, config.split, config.draws)
    write_json(run.folder / "retrieval.json", result)
    print(format_table(result["encoders"], result["levels"]))
    run.finish(result["encoders"]["encoder"] | {"levels": result["levels"]})
    return run.folder


def evaluate(embeds: dict[str, Embed], table: ClipTable, split: str, draws: int = 1000) -> dict:
    """Scores of several encoders on one split: {"encoders": {name: directions}, "levels": levels}.

    UserError if no moment of the split is seen by both views, or all moments are of one scene.
    """
    pairs = pair_views(table, table.rows_of(split))
    if not len(pairs.ego):
        raise UserError(
            f"no moment of split {split!r} has both an ego and an exo clip: check the source"
        )
    columns = {n: [getattr(table, n)[row] for row in pairs.ego] for n in ("verb", "scene", "take")}
    if len(set(columns["scene"])) < 2:
        raise UserError(
            f"all {len(pairs.ego)} moments of split {split!r} are of one scene, "
            f"{columns['scene'][0]!r}: retrieval across scenes needs "
            "two or more; use another scene key"
        )
    gallery = Gallery(**columns)
    ego, exo = (table.read(rows) for rows in (pairs.ego, pairs.exo))
    encoders = {}
    for name, embed in embeds.items():
        logger.info("embedding %d clips with %s", 2 * len(ego), name)
        encoders[name] = score_all(embed(ego), embed(exo), gallery, draws=draws)
    return {"encoders": encoders, "levels": gallery_levels(gallery), "split": split}


def baselines(config: EncoderConfig, seed: int) -> dict[str, Embed]:
    """Random weights of the same architecture, and raw pixels."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        untrained = InvActEncoder(config).eval()
    return {"random weights": untrained.embed, "pixels": pixel_embedding}


def pixel_embedding(frames: np.ndarray) -> np.ndarray:
    """All frames shrunk to 8 x 8, the clip's mean colour removed: uint8 (N, T, H, W, 3) -> float32
    (N, T*192).
    """
    pixels = torch.from_numpy(np.asarray(frames)).flatten(0, 1).permute(0, 3, 1, 2).float() / 255
    small = torch.nn.functional.adaptive_avg_pool2d(pixels, _PIXEL_GRID)
    flat = small.reshape(len(frames), frames.shape[1], 3, -1)
    return (flat - flat.mean(dim=(1, 3), keepdim=True)).flatten(1).numpy()


def encoder_folder(path: Path) -> Path:
    """The encoder inside a training run's folder, or the folder itself."""
    return path / "encoder" if (path / "encoder" / "config.json").exists() else path


def _parents(config: EvalConfig) -> dict[str, Path]:
    return {"encoder": config.encoder, **config.data.parents()}
