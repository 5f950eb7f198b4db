"""`invact bench label`: clips per second of labeling beside LAPA's public procedure, in one run, with
the same LAQ weights on the same pairs and machine.

- LAPA's procedure, as published: all frames of a clip are written as JPEG files; for each pair two of
  them are opened, resized by torchvision and given to the network in fp32, one pair at a time. The
  network runs as in the published code: 3-D convolutions for positions, attention over two frames by
  matrix products, the position bias made anew from all offsets. Source: LAPA's repository, `laq/`.
- this project: decoding and the labeler, as `invact latent label` uses them: a shard is decoded, in one
  thread or `workers` processes, while the one before is labeled.

Both have the same number of torch threads. The processor time is that of this process alone: with more
than one worker only the clock tells. JPEG files lose a little, so a few codes may differ.
"""

import copy
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from types import MethodType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image
from torch import Tensor

from invact_vla.core.errors import UserError
from invact_vla.core.files import write_json
from invact_vla.core.machine import device_name
from invact_vla.core.timing import Ratio, take_turns
from invact_vla.data.video.frames import decode_all, probe
from invact_vla.training.device import resolve_device, resolve_dtype
from latent_actions.labelers.lapa import LapaLabeler, laq_path
from latent_actions.labelers.laq.blocks import GridView, PositionGenerator
from latent_actions.labelers.laq.checkpoint import save_pretrained
from latent_actions.labelers.laq.config import LaqConfig
from latent_actions.labelers.laq.model import LatentActionQuantizer
from latent_actions.labelers.pairs import PairConfig, decoded_ahead, shards
from latent_actions.video.bench_decode import draw_videos
from latent_actions.video.records import PairRecord
from latent_actions.video.sources import FolderSource

LAPA, OURS = "LAPA's procedure", "this project"
SHARDS = 8  # of one labeling
SUFFIXES = (".webm", ".mp4", ".avi", ".mov")


def small_laq() -> LaqConfig:
    """The LAQ of configs/latent/laq_cpu.yaml, fed as the published one: frames are squashed."""
    return LaqConfig(
        dim=64, quant_dim=3, image_size=64, patch_size=8, spatial_depth=2, temporal_depth=1,
        dim_head=32, heads=2, residual=True, fit="squash",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class BenchLabelConfig:
    """What to measure, and how often."""

    laq: Path | None = (
        None  # weights: a run of `latent train`, a folder or a .pt; none: random ones
    )
    model: LaqConfig = field(default_factory=small_laq)  # size of random weights
    videos: Path | None = None  # folder of video files; none: drawn ones of SSV2's shape
    count: int = 8  # clips, at most
    # pairs of each clip, evenly spaced; 0: from every frame but the last, as LAPA: to the last frame
    # where the clip ends before the horizon
    pairs_per_clip: int = 0
    horizon_s: float = 2.4  # seconds from the first to the second frame of a pair
    workers: int = 1  # decoding processes of this project; LAPA's procedure has one
    threads: int = 1  # torch threads of both
    device: str = "auto"  # where the network runs: auto | cpu | cuda | cuda:N | mps
    dtype: str = "fp32"  # of this project's side: fp32 | bf16 (faster, some codes differ)
    rounds: int = 5  # labelings of all clips by each side; one more warms up
    out: Path | None = None  # JSON with every number

    def __post_init__(self) -> None:
        counts = self.count, self.workers, self.threads, self.rounds
        if min(counts) < 1 or self.pairs_per_clip < 0 or self.horizon_s <= 0:
            raise ValueError(
                "need count, workers, threads and rounds >= 1, pairs_per_clip >= 0, horizon_s > 0"
            )


def main(config: BenchLabelConfig) -> int:
    """Measure and print; returns 0."""
    found = measure(config)
    for name, row in found["sides"].items():
        print(
            f"{name:18} {row['clips_per_s']:8.2f} clips/s, {row['clips_per_cpu_s']:8.2f} per CPU second"
        )
    clock, cpu = found["faster"], found["faster_cpu"]
    print(
        f"{OURS} labels {clock['median']:.1f} [{clock['low']:.1f}, {clock['high']:.1f}] times the clips "
        f"per second ({cpu['median']:.1f} [{cpu['low']:.1f}, {cpu['high']:.1f}] by processor time); "
        f"{found['equal_codes']:.1%} of the codes are equal"
    )
    print(
        f"{found['clips']} clips of {found['pairs_per_clip']:.0f} pairs, LAQ of {found['parameters']:,} "
        f"parameters at {found['image_size']} px, {config.threads} thread(s), {found['device']}"
    )
    if config.out is not None:
        write_json(config.out, found)
    return 0


def measure(config: BenchLabelConfig) -> dict[str, Any]:
    """All numbers, as they are written."""
    torch.set_num_threads(config.threads)
    device = resolve_device(config.device)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        labeler = _labeler(config, folder, device)
        records = pairs_of(config, folder)
        codes: dict[str, np.ndarray] = {}
        published = as_published(labeler.model)

        def lapa(number: int) -> None:
            codes[LAPA] = lapa_procedure(published, records, folder / f"jpeg{number}")

        def ours(number: int) -> None:
            codes[OURS] = this_project(labeler, records, folder / f"store{number}", config.workers)

        timings = take_turns({LAPA: lapa, OURS: ours}, config.rounds, device, "label")
    clips = len({record.video for record in records})
    theirs, own = timings[LAPA], timings[OURS]
    return {
        "device": device_name(device),
        "clips": clips,
        "pairs_per_clip": len(records) / clips,
        "parameters": sum(p.numel() for p in labeler.model.parameters()),
        "image_size": labeler.model.config.image_size,
        "sides": {
            name: {
                "clips_per_s": clips / median(timing.clock),
                "clips_per_cpu_s": clips / median(timing.processor),
            }
            for name, timing in timings.items()
        },
        "faster": asdict(Ratio.of(own.clock, theirs.clock)),
        "faster_cpu": asdict(Ratio.of(own.processor, theirs.processor)),
        "equal_codes": float((codes[LAPA] == codes[OURS]).mean()),
    }


def this_project(
    labeler: LapaLabeler, records: list[PairRecord], folder: Path, workers: int
) -> np.ndarray:
    """Codes int64 (N, K) of pairs, as `invact latent label` makes them: each shard is decoded while the
    one before is labeled. Shards are small, so that few clips are as many shards as a long run has."""
    config = labeler.model.config
    source = FolderSource(root=folder)
    pairs = PairConfig(source=source, frames=2, size=config.image_size, fit=config.fit)
    parts = shards(records, -(-len(records) // SHARDS))
    jobs = [(part, folder / str(number)) for number, part in enumerate(parts)]
    stores = decoded_ahead(jobs, pairs, workers, keep=False)
    return np.concatenate([labeler.codes(store.frames, store.records) for store in stores])


def lapa_procedure(
    model: LatentActionQuantizer, records: list[PairRecord], folder: Path
) -> np.ndarray:
    """Codes int64 (N, K) of pairs: JPEG files of all frames, two opened per pair, one pair at a time."""
    from torchvision.transforms import Compose, Resize, ToTensor

    transform = Compose([Resize((model.config.image_size,) * 2), ToTensor()])
    for video in dict.fromkeys(record.video for record in records):
        frames = folder / video.name
        frames.mkdir(parents=True)
        for number, frame in enumerate(decode_all(video)):
            Image.fromarray(frame).save(frames / f"img_{number:05d}.jpg", quality=95)
    codes = []
    for record in records:
        images = []
        for number in (record.frame, record.frame_end):
            with Image.open(folder / record.video.name / f"img_{number:05d}.jpg") as image:
                images.append(transform(image.convert("RGB")))
        pair = torch.stack(images, dim=1)[None].to(model.device)
        codes.append(published_codes(model, pair).cpu().numpy())
    return np.concatenate(codes)


def as_published(model: LatentActionQuantizer) -> LatentActionQuantizer:
    """The same weights, with positions generated by 3-D convolutions as the published code does."""
    model = copy.deepcopy(model)

    def convolve(self: PositionGenerator, grid: Tensor) -> Tensor:
        padded = F.pad(rearrange(grid, "b t h w d -> b d t h w"), (1, 1, 1, 1, 2, 0))
        return rearrange(self.dsconv(padded), "b d t h w -> b t h w d")

    for module in model.modules():
        if isinstance(module, PositionGenerator):
            module.forward = MethodType(convolve, module)
    return model


@torch.no_grad()
def published_codes(model: LatentActionQuantizer, video: Tensor) -> Tensor:
    """`model.codes` of float (B, 3, 2, H, W) by the published code's steps: int64 (B, K)."""
    side = model.config.grid
    space = GridView("space", 2, side, side)
    time = GridView("time_scrambled" if model.config.lapa_compat else "time", 2, side, side)
    tokens = rearrange(model.to_patch_emb_first_frame(video), "b t h w d -> (b t) (h w) d")
    tokens = model.enc_spatial_transformer(tokens, space, bias=_bias_of_all_offsets(model))
    tokens = rearrange(tokens, "(b t) n d -> (b n) t d", t=2)
    no_bias = torch.zeros((), device=video.device)  # given, attention is by matrix products
    tokens = model.enc_temporal_transformer(tokens, time, bias=no_bias)
    first, last = rearrange(tokens, "(b n) t d -> t b n d", n=side * side)
    return model.vq(first, last, noise=False).codes


def _bias_of_all_offsets(model: LatentActionQuantizer) -> Tensor:
    """The position bias (E, N, N) from the network on all N x N offsets."""
    side = torch.arange(model.config.grid, device=model.device)
    places = torch.cartesian_prod(side, side)
    offsets = (places[:, None] - places[None, :]).float()
    bias = offsets.sign() * torch.log1p(offsets.abs())
    for layer in model.spatial_rel_pos_bias.net:
        bias = layer(bias)
    return rearrange(bias, "i j e -> e i j")


def _labeler(config: BenchLabelConfig, folder: Path, device: torch.device) -> LapaLabeler:
    if config.laq is not None:
        return LapaLabeler(laq_path(config.laq), device, resolve_dtype(config.dtype, device))
    torch.manual_seed(0)
    save_pretrained(LatentActionQuantizer(config.model), folder / "laq")
    return LapaLabeler(folder / "laq", device, resolve_dtype(config.dtype, device))


def pairs_of(config: BenchLabelConfig, folder: Path) -> list[PairRecord]:
    """Pairs of every frame of each clip, or evenly spaced ones."""
    if config.videos is None:
        videos = draw_videos(folder, "webm", config.count)
    else:
        files = sorted(p for p in Path(config.videos).rglob("*") if p.suffix.lower() in SUFFIXES)
        videos = files[: config.count]
    records = []
    for video in videos:
        info = probe(video)
        final, horizon = info.n_frames - 1, round(config.horizon_s * info.fps)
        if final < horizon:
            continue
        starts = np.arange(final)
        if config.pairs_per_clip:
            whole = np.linspace(0, final - horizon, config.pairs_per_clip)
            starts = np.unique(whole.round().astype(int))
        records += [
            PairRecord(
                video_id=video.stem, video=video, text="", frame=start,
                frame_end=min(start + horizon, final), fps=info.fps,
            )
            for start in starts.tolist()
        ]  # fmt: skip
    if not records:
        raise UserError(
            f"no video of {config.horizon_s} s or more below {config.videos}: give a folder of videos"
        )
    return records
