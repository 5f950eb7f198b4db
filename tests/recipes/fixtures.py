"""Small inputs of the VLA recipes: clips with a label store, LIBERO-style demonstrations."""

from pathlib import Path

import numpy as np

from invact_vla.core.schema import LatentLabels
from invact_vla.data.label_store import LabelIdentity, LabelStore, write_labels
from invact_vla.data.video.frames import video_key
from invact_vla.data.video.video_io import write_video

FRAMES = 6
TEXTS = ("Pushing a box to the left", "Turning the camera right", "Moving a cup up")


def write_clips(folder: Path, names: list[str]) -> Path:
    """Videos of a few frames of 40 x 32 px, each in a color of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        frames = np.random.default_rng(number).integers(0, 255, (1, 4, 5, 3), np.uint8)
        whole = frames.repeat(FRAMES, 0).repeat(8, 1).repeat(8, 2)
        write_video(folder / f"{name}.webm", whole, 10.0, codec="vp9")
    return folder


def write_store(
    path: Path,
    names: list[str],
    codebook_size: int = 8,
    code_length: int = 4,
    labeler: str = "a",
    pairs_per_clip: int = 3,
    videos: Path | None = None,
) -> Path:
    """A label store with codes that depend on the clip alone, so that they can be learned. videos: the
    folder of the clips, that of the store by default."""
    files = {name: (videos or path.parent) / f"{name}.webm" for name in names}
    keys = {name: video_key(file) if file.exists() else name for name, file in files.items()}
    episodes = [name for name in names for _ in range(pairs_per_clip)]
    frame = np.array([i for _ in names for i in range(pairs_per_clip)])
    codes = np.array(
        [[(names.index(e) + k) % codebook_size for k in range(code_length)] for e in episodes],
        np.int64,
    ).reshape(len(episodes), code_length)
    identity = LabelIdentity(labeler, labeler, "clips", path.stem, codebook_size, code_length)
    store = LabelStore(
        identity=identity,
        video_id=tuple(episodes),
        path=tuple(f"{e}.webm" for e in episodes),
        video_key=tuple(keys[e] for e in episodes),
        frame=frame.astype(np.int64),
        frame_end=frame.astype(np.int64) + 2,
        text=tuple(TEXTS[names.index(e) % len(TEXTS)] for e in episodes),
        labels=LatentLabels(codes, codebook_size),
    )
    write_labels(path, store)
    return path


def write_demos(
    folder: Path, name: str = "put_the_cup_on_the_plate", count: int = 3, steps: int = 12,
    seed: int = 0,
) -> Path:  # fmt: skip
    """A LIBERO HDF5 file of random demonstrations; returns the folder."""
    import h5py

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    with h5py.File(folder / f"{name}_demo.hdf5", "w") as file:
        for i in range(count):
            group = file.create_group(f"data/demo_{i}")
            actions = rng.uniform(-0.8, 0.8, (steps, 7))
            actions[:, 6] = np.where(np.arange(steps) < steps // 2, -1, 1)
            group["actions"] = actions
            obs = group.create_group("obs")
            for camera in ("agentview_rgb", "eye_in_hand_rgb"):
                obs[camera] = rng.integers(0, 255, (steps, 64, 64, 3), np.uint8)
            obs["ee_pos"] = rng.normal(size=(steps, 3))
            obs["ee_ori"] = rng.normal(size=(steps, 3))
            obs["gripper_states"] = rng.normal(size=(steps, 2))
    return folder
