"""Plays a plan in its world and writes the videos and the ground truth of one take or SSV2 clip."""

import atexit
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from invact_vla.data.video.video_io import write_video
from latent_actions.synthetic.cameras import CameraTrack, ego_track, exo_track, shaken
from latent_actions.synthetic.config import SSV2_FPS, SynthContent, Variety
from latent_actions.synthetic.film import Lens, filmed
from latent_actions.synthetic.hand import HandLook
from latent_actions.synthetic.people import People, people_mjcf
from latent_actions.synthetic.performance import Performance, play, set_phase, wrist_motion
from latent_actions.synthetic.render import Renderer
from latent_actions.synthetic.scenes import Scene
from latent_actions.synthetic.takes import LEAD_S, TakePlan
from latent_actions.synthetic.textures import Color
from latent_actions.synthetic.truth import write_truth
from latent_actions.synthetic.vocabulary import ACTIONS, COLORS
from latent_actions.synthetic.world import cached_world

EGO = "ego"
EGO_STREAM = "aria01_214-1"  # file name of the ego RGB stream in Ego-Exo4D
CAMERA_PURPOSE, LOOK_PURPOSE, PEOPLE_PURPOSE, FILM_PURPOSE, GAZE_PURPOSE = 1, 6, 7, 8, 9
DOWNSCALED = Path("frame_aligned_videos/downscaled/448")


@dataclass(frozen=True)
class RecordedTake:
    """frames, masks: per camera uint8 (T, H, W, 3) and (T, h, w); pose, velocity (T, 7); cut
    (T,); axes: of cameras, as truth.py has them.
    """

    frames: dict[str, np.ndarray]
    masks: dict[str, np.ndarray]
    pose: np.ndarray
    velocity: np.ndarray
    cut: np.ndarray
    axes: dict[str, np.ndarray]


def take_files(out: Path, content: SynthContent, plan: TakePlan) -> dict[str, Path]:
    """Files of a take: a video per camera, and "truth", which is written last."""
    folder = out / "egoexo4d" / "takes" / plan.name / DOWNSCALED
    files = {EGO: folder / f"{EGO_STREAM}.mp4"}
    files |= {camera: folder / f"{camera}.mp4" for camera in exo_names(content)}
    return files | {"truth": out / "truth" / "egoexo4d" / f"{plan.name}.npz"}


def clip_files(out: Path, plan: TakePlan) -> dict[str, Path]:
    """Files of an SSV2 clip."""
    video = out / "ssv2" / "20bn-something-something-v2" / f"{plan.name}.webm"
    truth = out / "truth" / "ssv2" / f"{plan.name}.npz"
    return {str(plan.camera): video, "truth": truth}


def exo_names(content: SynthContent) -> list[str]:
    """Names of the exo cameras: cam01, cam02 ..."""
    return [f"cam{number + 1:02d}" for number in range(content.n_exo)]


def write_recording(out: Path, content: SynthContent, plan: TakePlan) -> None:
    """Record a plan and write its files; complete ones are left as they are."""
    single = plan.camera is not None
    files = clip_files(out, plan) if single else take_files(out, content, plan)
    if all(path.exists() for path in files.values()):
        return
    fps = SSV2_FPS if single else content.fps
    recording = record(content, plan, fps)
    for camera, frames in recording.frames.items():
        write_video(files[camera], frames, fps, "vp9" if single else "h264", content.crf)
    write_truth(
        files["truth"], recording.pose, recording.velocity, recording.cut, recording.masks,
        recording.axes,
    )  # fmt: skip


def record(content: SynthContent, plan: TakePlan, fps: float) -> RecordedTake:
    """Simulate and render a plan."""
    variety = content.variety
    world = cached_world(
        seed=content.seed, split=plan.split, number=plan.number, n_exo=content.n_exo,
        side=plan.side, size=content.size, variety=variety,
        more=people_mjcf() if variety.people else "",
    )  # fmt: skip
    look, people = plan.look, None
    if variety:
        look = _varied(look, plan.rng(LOOK_PURPOSE), variety.hands)
    if variety.people:
        times = np.arange(plan.frames) / fps
        helped = _helping_hand(plan, fps)
        people = People(plan.rng(PEOPLE_PURPOSE), variety.people, plan.side, times, helped)
    renderer = _renderer(content.size)
    every = camera_tracks(plan, world.scene, fps, variety)
    tracks = every if plan.camera is None else {plan.camera: every[plan.camera]}
    shown = every if plan.camera is None else {"camera": every[plan.camera], EGO: every[EGO]}
    shape = (plan.frames, content.size, content.size, 3)
    frames = {camera: np.empty(shape, np.uint8) for camera in tracks}
    masks = {
        camera: np.empty((plan.frames, content.mask_size, content.mask_size), np.uint8)
        for camera in tracks
    }
    pose, velocity = np.empty((plan.frames, 7), np.float32), np.empty((plan.frames, 7), np.float32)
    cut = np.zeros(plan.frames, bool)
    for block in plan.blocks:
        performance = block.performance
        colors = {performance.kind: _colors(performance.colors)}
        if performance.partner is not None:
            colors[performance.partner] = _colors((performance.colors[1], performance.colors[0]))
        world.reset(look, colors)
        if people is not None:
            people.enter(world, look, block.start_frame)
        things = set_phase(world, performance)
        cut[block.start_frame] = True
        grip = performance.path.sample(np.arange(block.frames) / fps - LEAD_S).grip
        for local in play(world, performance, fps, block.frames, LEAD_S):
            index = block.start_frame + local
            if people is not None:
                people.move(world, index)
            for camera, track in tracks.items():
                frames[camera][index] = renderer.frame(world, track, index)
                masks[camera][index] = renderer.mask(world, track, index, content.mask_size, things)
            pose[index], velocity[index, :6] = wrist_motion(world)
            velocity[index, 6] = grip[local]
    if variety:
        rng = plan.rng(FILM_PURPOSE)
        for camera, track in tracks.items():
            lens = Lens(rng, variety.lens)
            frames[camera] = filmed(frames[camera], track, lens, rng, variety)
            masks[camera] = lens.through(masks[camera])
    axes = {name: track.axes for name, track in shown.items()}
    return RecordedTake(frames, masks, pose, velocity, cut, axes)


def _varied(look: HandLook, rng: np.random.Generator, spread: float) -> HandLook:
    """Another thickness and skin tone of the hand, and now and then a bare arm."""
    thickness = rng.uniform(1 - 0.5 * spread, 1 + spread)
    red, green, blue = np.clip(np.array(look.skin) * rng.uniform(1 - spread, 1.1), 0, 1).tolist()
    skin = (red, green, blue)
    bare = rng.random() < spread
    return HandLook(skin, skin if bare else look.sleeve, thickness)


def camera_tracks(
    plan: TakePlan, scene: Scene, fps: float, variety: Variety
) -> dict[str, CameraTrack]:
    """Camera poses over the whole plan, by camera; the head sways on through cuts."""
    wrists = [
        block.performance.path.sample(np.arange(block.frames) / fps - LEAD_S).wrist
        for block in plan.blocks
    ]
    times = np.arange(plan.frames) / fps
    wrist, rng = np.concatenate(wrists), plan.rng(CAMERA_PURPOSE)
    aside = _head_turns(plan, fps, variety.gaze) if variety.gaze else 0.0
    tracks = {EGO: ego_track(rng, times, wrist, fps, variety.views, aside)}
    tracks |= {camera.name: exo_track(camera, plan.frames) for camera in scene.exo}
    if variety.shake:
        tracks = {name: shaken(track, rng, times, variety.shake) for name, track in tracks.items()}
    return tracks


def _head_turns(plan: TakePlan, fps: float, largest: float) -> np.ndarray:
    """How far the gaze is from what the hands do, (T, 3) m: it comes from elsewhere to what is reached
    for, and goes away with what is carried off."""
    rng, aside = plan.rng(GAZE_PURPOSE), np.zeros((plan.frames, 3))
    for block in plan.blocks:
        size = largest * rng.uniform(0.2, 1.0)
        sideways, beyond, up = rng.uniform((0.3, -0.2, 0.0), (1.0, 0.6, 0.5))
        way = size * np.array([rng.choice((-1, 1)) * sideways, beyond, up])
        times = np.arange(block.frames) / fps - LEAD_S
        rows = slice(block.start_frame, block.start_frame + block.frames)
        aside[rows] = _looking_away(block.performance, times)[:, None] * way
    return aside


def _looking_away(performance: Performance, times: np.ndarray) -> np.ndarray:
    """Share of the way aside that the gaze is, at times after a cut: (T,) in [0, 1], without jumps."""
    away = float(ACTIONS[performance.actions[0]].arrives)  # at the cut
    share = np.full(len(times), away)
    for name, (start, end) in zip(performance.actions, performance.spans, strict=True):
        part, later = (times - start) / (end - start), times >= start
        if ACTIONS[name].arrives:
            share[later] = (away * (1 - _eased(part / 0.45)))[later]
            away = 0.0
        if ACTIONS[name].leaves:
            share[later] += _eased((part - 0.55) / 0.45)[later]
            away = 1.0
    return share


def _eased(part: np.ndarray) -> np.ndarray:
    """From 0 to 1, at rest at both ends."""
    part = np.clip(part, 0, 1)
    return part * part * (3 - 2 * part)


def _helping_hand(plan: TakePlan, fps: float) -> np.ndarray:
    """Where the other hand is while it is at the action too, (T, 3) m; else NaN."""
    mirror = 1.0 if plan.side == "right" else -1.0
    places = np.full((plan.frames, 3), np.nan)
    for block in plan.blocks:
        if ACTIONS[block.performance.actions[0]].two_handed:
            times = np.arange(block.frames) / fps - LEAD_S
            wrist = block.performance.path.sample(times).wrist.mean(axis=0)
            places[block.start_frame : block.start_frame + block.frames] = wrist + np.array(
                [-0.13 * mirror, 0.03, -0.02]
            )
    return places


def _colors(names: tuple[str, str]) -> tuple[Color, Color]:
    return COLORS[names[0]], COLORS[names[1]]


@cache
def _renderer(size: int) -> Renderer:
    renderer = Renderer(size)
    atexit.register(renderer.close)  # while the GL library is still loaded
    return renderer
