"""The `synth` stage: synthetic human video as an Ego-Exo4D tree and an SSV2 tree, with ground
truth.

    <out>/egoexo4d/   takes.json, annotations/,
    takes/<name>/frame_aligned_videos/downscaled/448/*.mp4 <out>/ssv2/
    20bn-something-something-v2/<id>.webm, labels/*.json <out>/truth/      see truth.py

Each take is a function of (config, index): files that exist are kept, and the bytes do not depend
on the number of workers or on interruptions.
"""

import logging
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from invact_vla.core.files import write_json
from invact_vla.core.run_folder import open_run
from latent_actions.synthetic.annotations import (
    description,
    descriptions_json,
    keystep_json,
    takes_json,
    write_ego_pose,
)
from latent_actions.synthetic.config import SSV2_FPS, SynthContent
from latent_actions.synthetic.recording import (
    EGO,
    camera_tracks,
    exo_names,
    take_files,
    write_recording,
)
from latent_actions.synthetic.scenes import make_scene
from latent_actions.synthetic.ssv2_labels import entries_json, label_of, labels_json
from latent_actions.synthetic.takes import LEAD_S, SUBSETS, TakePlan, plan_clip, plan_take
from latent_actions.synthetic.truth import read_masks, read_pose, write_actions
from latent_actions.synthetic.vocabulary import ACTIONS
from latent_actions.video.verbs import verb_of
from latent_actions.video.workers import run_parallel

logger = logging.getLogger(__name__)
CLIPS_PER_JOB = 12
Item = tuple[str, str, int]  # "take" or "clip", its subset, its index
Job = tuple[Path, SynthContent, list[Item]]


@dataclass(frozen=True, kw_only=True)
class SynthConfig(SynthContent):
    """Synthetic human video: where it goes, what it contains."""

    out: Path  # folder to write: egoexo4d/, ssv2/, truth/
    overwrite: bool = False  # replace a folder made with another config
    workers: int = 2  # processes; does not change a byte

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.workers < 1:
            raise ValueError(f"workers must be at least 1, got {self.workers}")


def main(config: SynthConfig) -> Path:
    """Render what is missing, write the label files, return config.out."""
    run = open_run(config.out, config, overwrite=config.overwrite, seed=config.seed)
    if run.finished:
        return run.folder
    jobs = _jobs(config)
    total = sum(len(items) for _, _, items in jobs)
    with tqdm(total=total, desc="synth", unit="video", mininterval=1.0) as bar:
        for done in run_parallel(_render, jobs, config.workers):
            bar.update(done)
    takes = {split: _take_plans(config, split) for split in ("train", "val")}
    clips = {subset: _clip_plans(config, subset) for subset in SUBSETS}
    _write_egoexo4d(config, takes)
    _write_ssv2(config, clips)
    rows = _action_rows(config, takes, clips)
    write_actions(config.out / "truth" / "actions.parquet", rows)
    run.finish(_summary(config, takes, clips, rows))
    return run.folder


def _take_plans(config: SynthConfig, split: str) -> list[TakePlan]:
    count = config.n_train_takes if split == "train" else config.n_val_takes
    return [plan_take(config, split, index) for index in range(count)]


def _clip_plans(config: SynthConfig, subset: str) -> list[TakePlan]:
    count = {"train": config.ssv2_train, "validation": config.ssv2_val, "test": config.ssv2_test}[
        subset
    ]
    return [plan_clip(config, subset, index) for index in range(count)]


def _jobs(config: SynthConfig) -> list[Job]:
    """Takes one by one, then SSV2 clips in bunches, so that workers finish together."""
    takes = (("train", config.n_train_takes), ("val", config.n_val_takes))
    items = [("take", split, index) for split, count in takes for index in range(count)]
    jobs: list[Job] = [(config.out, config, [item]) for item in items]
    for subset, count in zip(
        SUBSETS, (config.ssv2_train, config.ssv2_val, config.ssv2_test), strict=True
    ):
        for start in range(0, count, CLIPS_PER_JOB):
            indices = range(start, min(start + CLIPS_PER_JOB, count))
            jobs.append((config.out, config, [("clip", subset, index) for index in indices]))
    return jobs


def _render(job: Job) -> int:
    """Render the items of a job that are not there yet; returns how many items it has."""
    out, content, items = job
    for what, subset, index in items:
        plan = (plan_take if what == "take" else plan_clip)(content, subset, index)
        write_recording(out, content, plan)
    return len(items)


def _write_egoexo4d(config: SynthConfig, takes: dict[str, list[TakePlan]]) -> None:
    root = config.out / "egoexo4d"
    every = [plan for plans in takes.values() for plan in plans]
    best = {plan.name: _best_exo(config, plan) for plan in every}
    write_json(root / "takes.json", takes_json(config, every, best))
    for split, plans in takes.items():
        annotations = root / "annotations"
        write_json(
            annotations / f"atomic_descriptions_{split}.json",
            descriptions_json(plans, config.fps, best),
        )
        write_json(annotations / f"keystep_{split}.json", keystep_json(config, plans))
    for plan in every:
        _write_poses(config, plan)


def _write_poses(config: SynthConfig, plan: TakePlan) -> None:
    """Where hand and cameras of a take are."""
    variety = config.variety
    scene = make_scene(config.seed, plan.split, plan.number, config.n_exo, variety)
    tracks = camera_tracks(plan, scene, config.fps, variety)
    tracks["aria01"] = tracks.pop(EGO)
    pose = read_pose(take_files(config.out, config, plan)["truth"])
    write_ego_pose(config.out / "egoexo4d", plan, pose, tracks)


def _write_ssv2(config: SynthConfig, clips: dict[str, list[TakePlan]]) -> None:
    labels = config.out / "ssv2" / "labels"
    write_json(labels / "labels.json", labels_json(config.kitchen))
    for subset, plans in clips.items():
        write_json(labels / f"{subset}.json", entries_json(plans, labeled=subset != "test"))


def _best_exo(config: SynthConfig, plan: TakePlan) -> str:
    """The exo camera that shows most of hand and object."""
    path = take_files(config.out, config, plan)["truth"]
    seen = {
        camera: sum(int(m.sum()) for m in read_masks(path, camera)) for camera in exo_names(config)
    }
    return max(sorted(seen), key=lambda camera: seen[camera])


def _action_rows(
    config: SynthConfig, takes: dict[str, list[TakePlan]], clips: dict[str, list[TakePlan]]
) -> list[dict[str, Any]]:
    rows = []
    for split, plans in [*takes.items(), *clips.items()]:
        for plan in plans:
            rows += _plan_rows(config, plan, split)
    return rows


def _plan_rows(config: SynthConfig, plan: TakePlan, split: str) -> list[dict[str, Any]]:
    single = plan.camera is not None
    fps = SSV2_FPS if single else config.fps
    rows = []
    for block in plan.blocks:
        for order, (name, (start_s, end_s)) in enumerate(
            zip(block.performance.actions, block.performance.spans, strict=True)
        ):
            text = description(plan, block, order)
            offset_s = block.start_frame / fps + LEAD_S
            rows.append(
                {
                    "dataset": "ssv2" if single else "egoexo4d",
                    "episode": plan.name,
                    "index": len(rows),
                    "action": name,
                    "verb": verb_of(text),
                    "opposite": ACTIONS[name].opposite,
                    "family": block.performance.family,
                    "kind": block.performance.kind,
                    "partner": block.performance.partner,
                    "text": label_of(plan)["label"] if single else text,
                    "scene": plan.scene,
                    "split": split,
                    "hand": plan.side,
                    "camera": plan.camera,
                    "start_s": offset_s + start_s,
                    "end_s": offset_s + end_s,
                    "fps": fps,
                }
            )
    return rows


def _summary(
    config: SynthConfig,
    takes: dict[str, list[TakePlan]],
    clips: dict[str, list[TakePlan]],
    rows: list[dict[str, Any]],
) -> dict[str, Any]:
    """What was made, in numbers."""
    actions: dict[str, int] = defaultdict(int)
    for row in rows:
        if row["dataset"] == "egoexo4d":
            actions[row["split"]] += 1
    views = 1 + config.n_exo
    return {
        "takes": {split: len(plans) for split, plans in takes.items()},
        "actions": dict(actions),
        "clips": {split: count * views for split, count in actions.items()},
        "ssv2": {subset: len(plans) for subset, plans in clips.items()},
        "scenes": {split: sorted({plan.scene for plan in plans}) for split, plans in takes.items()},
        "verbs": sorted({row["verb"] for row in rows}),
        "frames": int(
            np.sum([plan.frames * views for plans in takes.values() for plan in plans])
            + np.sum([plan.frames for plans in clips.values() for plan in plans])
        ),
    }
