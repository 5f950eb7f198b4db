"""The JSON files of the Ego-Exo4D tree, with the irregularities of the real ones.

As in the real files: truth values are true, "1" or 1; the subject's key is `subject` or
`narration_subject`; takes have one or two annotators, some of them rejected; other people are
described too; time stamps are points, late or early by a little; best_exo may be null; takes.json
lists streams that are not on disk.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from invact_vla.core.files import atomic_file
from latent_actions.synthetic.cameras import CameraTrack
from latent_actions.synthetic.config import SynthContent
from latent_actions.synthetic.recording import EGO_STREAM, exo_names
from latent_actions.synthetic.scenes import make_scene
from latent_actions.synthetic.takes import LEAD_S, Segment, TakePlan
from latent_actions.synthetic.vocabulary import ACTIONS, KINDS_NOUN

ANNOTATOR_PURPOSE, REJECTED_PURPOSE, TAKE_PURPOSE, TEXT_PURPOSE = 2, 3, 4, 5
TIMESTAMP_NOISE_S = 0.08
POSE_DIGITS = 5  # of a meter, and of a direction
OTHER_PEOPLE = (
    "The man X walks past the table",
    "O looks at the table",
    "The woman Y waves a hand",
)


def takes_json(
    content: SynthContent, plans: list[TakePlan], best: dict[str, str]
) -> list[dict[str, Any]]:
    """takes.json. best: {take name: exo camera that shows most of the hand}."""
    return [_take_entry(content, plan, best[plan.name]) for plan in plans]


def _take_entry(content: SynthContent, plan: TakePlan, best: str) -> dict[str, Any]:
    rng = plan.rng(TAKE_PURPOSE)
    scene = make_scene(content.seed, plan.split, plan.number, content.n_exo)
    institution, _, activity = plan.scene.partition("_")
    duration_s = plan.frames / content.fps
    folder = "frame_aligned_videos"
    videos: dict[str, Any] = {
        "aria01": {
            "rgb": {"relative_path": f"{folder}/{EGO_STREAM}.mp4"},
            "slam-left": {"relative_path": f"{folder}/aria01_1201-1.mp4"},
            "et": {"relative_path": f"{folder}/aria01_211-1.mp4"},
        }
    }
    for camera in exo_names(content):
        videos[camera] = {"0": {"relative_path": f"{folder}/{camera}.mp4"}}
    bounded = rng.random() < 0.6
    return {
        "take_uid": plan.uid, "take_name": plan.name, "root_dir": f"takes/{plan.name}",
        "university_name": institution, "capture_uid": plan.name.rpartition("_")[0],
        "physical_setting_uid": scene.uid, "parent_task_name": activity.capitalize(),
        "task_name": f"Table-top actions, {activity}",
        "best_exo": best if rng.random() < 0.8 else None, "duration_sec": duration_s,
        "task_start_sec": 0.0 if bounded else None, "task_end_sec": duration_s if bounded else None,
        "validated": True, "is_narrated": True, "frame_aligned_videos": videos,
    }  # fmt: skip


def keystep_json(content: SynthContent, plans: list[TakePlan]) -> dict[str, Any]:
    """keystep_<split>.json: a segment per performance, from cut to cut."""
    families = sorted({block.performance.family for plan in plans for block in plan.blocks})
    number = {family: index for index, family in enumerate(families)}
    annotations = {}
    for plan in plans:
        segments = [
            {
                "start_time": block.start_frame / content.fps,
                "end_time": (block.start_frame + block.frames) / content.fps,
                "step_id": number[block.performance.family],
                "step_name": _step_name(block.performance.family),
                "step_description": " and ".join(
                    ACTIONS[name].name for name in block.performance.actions
                ),
                "is_essential": True,
                "step_unique_id": number[block.performance.family],
            }
            for block in plan.blocks
        ]
        annotations[plan.uid] = {
            "take_name": plan.name,
            "take_uid": plan.uid,
            "scenario": "Table-top",
            "segments": segments,
        }
    taxonomy = {
        str(index): {
            "name": _step_name(family),
            "is_leafnode": True,
            "parent_id": None,
            "parent_name": None,
            "unique_id": index,
        }
        for family, index in number.items()
    }
    vocabulary = {str(index): _step_name(family) for family, index in number.items()}
    return {
        "annotations": annotations,
        "taxonomy": {"Table-top": taxonomy},
        "vocabulary": vocabulary,
    }


def _step_name(family: str) -> str:
    return family.replace("_", " and ")


def descriptions_json(plans: list[TakePlan], fps: float, best: dict[str, str]) -> dict[str, Any]:
    """atomic_descriptions_<split>.json."""
    annotations = {plan.uid: _take_annotations(plan, fps, best[plan.name]) for plan in plans}
    cameras = {plan.uid: {"aria01": "aria01", "cam01": "1", "cam02": "2"} for plan in plans}
    return {"annotations": annotations, "take_cam_id_map": cameras}


def _take_annotations(plan: TakePlan, fps: float, best: str) -> list[dict[str, Any]]:
    rng = plan.rng(ANNOTATOR_PURPOSE)
    main = _annotator(plan, fps, best, rng, complete=True)
    result = [main]
    if rng.random() < 0.3:  # a second annotator who described only a part
        result.append(_annotator(plan, fps, best, rng, complete=False))
    if rng.random() < 0.3:
        spoiled = _annotator(plan, fps, best, plan.rng(REJECTED_PURPOSE), complete=True)
        for row in spoiled["descriptions"]:
            row["text"] = "C does something"
        spoiled |= {"rejected": True, "reject_reason": "not specific"}
        result.insert(int(rng.integers(len(result) + 1)), spoiled)
    return result


def _annotator(
    plan: TakePlan, fps: float, best: str, rng: np.random.Generator, complete: bool
) -> dict[str, Any]:
    """One annotator's list: an entry per action, and now and then another person at a cut."""
    rows = []
    for block in plan.blocks:
        if not complete and rng.random() < 0.5:
            continue
        start_s = block.start_frame / fps
        for order, (begin_s, _) in enumerate(block.performance.spans):
            noise = rng.uniform(-TIMESTAMP_NOISE_S, TIMESTAMP_NOISE_S)
            time_s = start_s + LEAD_S + begin_s + noise
            rows.append(_description(description(plan, block, order), time_s, best, rng))
        if rng.random() < 0.08:
            end_s = start_s + block.frames / fps
            text = OTHER_PEOPLE[rng.integers(len(OTHER_PEOPLE))]
            rows.append(_description(text, end_s - 0.05, best, rng, subject="O"))
    order = rng.permutation(len(rows))  # files are not sorted by time
    return {
        "annotation_uid": f"{plan.uid[:8]}-{int(rng.integers(1 << 30)):08x}",
        "annotator_id": f"annotator_{int(rng.integers(40)):02d}",
        "rejected": False if rng.random() < 0.5 else "0",
        "reject_reason": None,
        "descriptions": [rows[i] for i in order],
    }


def _description(
    text: str, time_s: float, best: str, rng: np.random.Generator, subject: str = "C"
) -> dict[str, Any]:
    yes, no = ((True, False), ("1", "0"))[rng.integers(2)]
    chosen = {"raw_cam_id": str(int(best[3:])), "cam_id": best}
    return {
        "text": text,
        "timestamp": round(time_s, 4),
        ("narration_subject" if rng.random() < 0.5 else "subject"): subject,
        "ego_visible": yes if rng.random() < 0.95 else no,
        "unsure": yes if rng.random() < 0.02 else no,
        "best_exo": chosen if rng.random() < 0.9 else None,
    }


def description(plan: TakePlan, block: Segment, order: int) -> str:
    """The sentence about the order-th action of a block: "C picks the red can from the table"."""
    performance = block.performance
    action = ACTIONS[performance.actions[order]]
    rng = plan.rng(TEXT_PURPOSE * 1000 + block.start_frame + order)
    tail = action.tails[rng.integers(len(action.tails))]
    partner = KINDS_NOUN.get(str(performance.partner), str(performance.partner))
    noun = KINDS_NOUN[performance.kind]
    hand = f" with the {plan.side} hand" if not tail and rng.random() < 0.5 else ""
    thing = f"the {performance.colors[0]} {noun}"
    return f"C {action.third_person} {thing}{tail.format(partner=partner)}{hand}"


def write_ego_pose(
    root: Path, plan: TakePlan, pose: np.ndarray, tracks: dict[str, CameraTrack]
) -> None:
    """The hand's and the cameras' file of a take in annotations/ego_pose, as sources/egoexo4d_poses.py
    reads them. pose: (T, 7), wrist position in m first; tracks: by the names that annotations give the
    cameras, those of moving glasses begin with `aria`."""
    folder = root / "annotations" / "ego_pose" / plan.split
    joint = f"{plan.side}_wrist"
    hand = {
        str(frame): [{"annotation3D": {joint: _point(pose[frame, :3])}}]
        for frame in range(len(pose))
    }
    _write_compact(folder / "hand" / "annotation" / f"{plan.uid}.json", hand)
    cameras: dict[str, Any] = {"metadata": {"take_uid": plan.uid, "take_name": plan.name}}
    for name, track in tracks.items():
        cameras[name] = {"camera_extrinsics": _extrinsics(track, moving=name.startswith("aria"))}
    _write_compact(folder / "camera_pose" / f"{plan.uid}.json", cameras)


def _write_compact(path: Path, value: Any) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(value))


def _point(position: np.ndarray) -> dict[str, float]:
    return dict(zip("xyz", np.round(position.astype(float), POSE_DIGITS).tolist(), strict=True))


def _extrinsics(track: CameraTrack, moving: bool) -> Any:
    """World to camera, 3 x 4, x right, y down, z forward: of a moving camera for every frame."""
    turn = track.axes.transpose(0, 2, 1) * np.array([1.0, -1.0, -1.0])[:, None]
    shift = -np.einsum("tij,tj->ti", turn, track.position)
    matrices = np.round(np.concatenate([turn, shift[..., None]], axis=2), POSE_DIGITS).tolist()
    return {str(frame): m for frame, m in enumerate(matrices)} if moving else matrices[0]
