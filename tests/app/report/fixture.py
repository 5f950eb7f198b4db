"""Run folders of an invented ladder, written through the project's own writers."""

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from invact_vla.app.report.inputs import ReportInputs, VariantInputs
from invact_vla.app.report.labeler_sections import pick_samples
from invact_vla.core.files import write_json
from invact_vla.core.schema import LatentLabels
from invact_vla.data.label_store import LabelIdentity, LabelStore, write_labels
from invact_vla.data.video.frames import video_key
from invact_vla.data.video.video_io import write_video
from libero_eval.env.manifest import environment_manifest, manifest_hash
from libero_eval.results.rows import EpisodeLog, EpisodeRow
from libero_eval.rollout.command import video_name
from libero_eval.rollout.episode_video import EpisodeVideo
from tests.libero_eval.rows import make_row

TASKS = (
    "LIVING_ROOM_SCENE2_put_both_the_alphabet_soup_and_the_tomato_sauce_in_the_basket",
    "KITCHEN_SCENE3_turn_on_the_stove_and_put_the_moka_pot_on_it",
    "LIVING_ROOM_SCENE5_put_the_white_mug_on_the_left_plate_and_put_the_<b>_mug_on_it",
)
RATES = {"none": 0.2, "lapa": 0.35, "invact": 0.5, "expert": 0.97}
TEXTS = (
    "Pushing a cup from left to right",
    "Lifting <i>soap</i> up",
    "Twisting a lid",
    "Closing a box",
)


def scene(x: float, y: float = 0.5, size: int = 96) -> np.ndarray:
    """A picture with a moving disc, uint8 (size, size, 3)."""
    image = Image.new("RGB", (size, size), (188, 196, 182))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, size * 0.62, size, size), fill=(150, 120, 90))
    center = np.array([x, y]) * size
    draw.ellipse((*(center - size / 9), *(center + size / 9)), fill=(200, 70, 50))
    return np.asarray(image)


def rollouts(folder: Path, variant: str, episodes: int) -> Path:
    """episodes.jsonl, manifest.json and a few videos of a variant."""
    manifest = environment_manifest("egl")
    write_json(folder / "manifest.json", manifest)
    with EpisodeLog(folder / "episodes.jsonl") as log:
        for task_id, task in enumerate(TASKS):
            for init in range(episodes):
                rng = np.random.default_rng([task_id, init])
                outcome = "success" if rng.random() < RATES[variant] else "failure"
                row = make_row(
                    policy_name=variant, task_id=task_id, task=task, init_index=init, outcome=outcome,
                    manifest_hash=manifest_hash(manifest), closest_m=float(rng.uniform(0.01, 0.2)),
                    checkpoint_hash=f"{variant}-checkpoint",
                )  # fmt: skip
                log.append(row)
                if init == 0:
                    film(folder, row)
    return folder


def film(folder: Path, row: EpisodeRow) -> None:
    """A short video of an episode."""
    path = folder / video_name(row.task_id, row.init_index)
    video = EpisodeVideo(path, row.task.replace("_", " "), stride=4, size_px=160)
    for step in range(0, 80, 4):
        video.add(step, scene(0.1 + step / 100, size=128))
    video.save(row.outcome)


def training(folder: Path, seed: int, **metrics: tuple[float, float]) -> Path:
    """metrics.jsonl with a falling loss and more metrics that go from one value to another."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    with (folder / "metrics.jsonl").open("w") as file:
        for step in range(0, 600, 10):
            share = 1 - np.exp(-step / 150)
            values = {
                name: first + (last - first) * share + rng.normal(0, 0.02 * abs(last - first))
                for name, (first, last) in {"loss": (5.0 + seed / 4, 1.2), **metrics}.items()
            }
            row = {"step": step, **values, "samples": step * 32, "seconds": step / 20}
            file.write(json.dumps(row) + "\n")
    write_json(folder / "done.json", {"key": f"{seed:016x}", "seconds": 41.5 + 60 * seed})
    write_json(folder / "provenance.json", {"commit": "0123456789abcdef", "inputs": {"data": {}}})
    (folder / "config.yaml").write_text("steps: 600\nnote: a < b\n")
    return folder


def encoder(folder: Path) -> Path:
    """retrieval.json, curves and a picture."""
    training(folder, 1, verb_accuracy=(0.1, 0.7), contrast=(3.0, 1.0))
    names = ("g-g", "x-x", "cross_scene", "g-x", "x-g", "cross_view")
    scores = {"encoder": 61.0, "random weights": 13.0, "pixels": 14.5}
    encoders = {
        name: {d: {"p_at_10": v - i, "low": v - 6, "high": v + 5, "n": 128}
               for i, d in enumerate(names)}
        for name, v in scores.items()
    }  # fmt: skip
    level = {"chance": 12.1, "oracle": 98.7, "answerable": 100.0, "n": 128, "groups": 4}
    write_json(folder / "retrieval.json", {"encoders": encoders, "levels": {"scene": level}})
    strip = np.concatenate([scene(x / 8) for x in range(8)], axis=1)
    Image.fromarray(np.concatenate([strip, strip // 2])).save(folder / "committed.png")
    return folder


def labels(folder: Path, name: str, videos: Path) -> Path:
    """A label store of 200 pairs; the clips of the first few lie in `videos`."""
    rng = np.random.default_rng(len(name))
    n = 200
    for index, _ in enumerate(TEXTS):
        path = videos / f"{index}.webm"
        if not path.exists():
            frames = np.stack([scene(0.1 + t / 30, 0.3 + index / 10) for t in range(24)])
            write_video(path, frames, 12, "vp9", 40)
    store = LabelStore(
        identity=LabelIdentity(name, f"{name}-hash", "ssv2/val", "data", 8, 4),
        video_id=tuple(f"ssv2/{i % len(TEXTS)}" for i in range(n)),
        path=tuple(f"{i % len(TEXTS)}.webm" for i in range(n)),
        video_key=tuple(video_key(videos / f"{i % len(TEXTS)}.webm") for i in range(n)),
        frame=np.array([i // len(TEXTS) % 5 for i in range(n)]),
        frame_end=np.array([10 + i // len(TEXTS) % 5 for i in range(n)]),
        text=tuple(TEXTS[i % len(TEXTS)] for i in range(n)),
        labels=LatentLabels(rng.integers(0, 8, size=(n, 4)) // rng.integers(1, 3, size=(n, 1)), 8),
    )
    path = folder / f"{name}.parquet"
    write_labels(path, store)
    return path


def ladder(root: Path, episodes: int = 6) -> ReportInputs:
    """A whole invented ladder below root."""
    claims = {"none": 34.0, "lapa": 44.0, "invact": 52.0}
    variants = {
        name: VariantInputs(
            rollouts=rollouts(root / name / "rollouts", name, episodes),
            posttrain=training(root / name / "post", 3, action_l1=(0.4, 0.05)),
            pretrain=None
            if name == "none"
            else training(root / name / "pre", 2, latent_accuracy=(0.1, 0.5)),
            start="random weights" if name == "none" else f"random weights, SSV2 with {name} codes",
            reported_success_rate=claim,
        )
        for name, claim in claims.items()
    }
    stores = {name: labels(root / "labels", name, root / "webm") for name in ("lapa", "invact")}
    laq = training(root / "laq", 0, perplexity_min=(1.5, 7.5))
    Image.fromarray(np.concatenate([scene(0.2), scene(0.5), scene(0.48)], axis=1)).save(
        laq / "reconstructions.png"
    )
    write_json(root / "demos" / "summary.json", {"demonstrations": 60, "tasks": {"0": 30, "1": 30}})
    return ReportInputs(
        variants=variants,
        hardware="Two processor cores, 20 minutes.",
        controls={"expert": rollouts(root / "expert", "expert", episodes)},
        encoder=encoder(root / "encoder"),
        laq=laq,
        labels=stores,
        demos=root / "demos",
        samples=pick_samples(stores, root / "webm", 4),
        stages={"encoder": root / "encoder", "laq": laq, "posttrain": root / "invact" / "post"},
    )
