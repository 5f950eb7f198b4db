"""Small data sets of every kind of source, made from a few tiny videos."""

import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from invact_vla.data.dataset import RobotEpisode
from invact_vla.data.readers.lerobot_writer import write_lerobot
from invact_vla.data.video.video_io import write_video
from latent_actions.video.phyworld import PhyWorldConfig
from latent_actions.video.phyworld import main as generate
from latent_actions.video.source import SourceConfig
from latent_actions.video.sources import (
    DemonstrationsSource,
    EgoExo4dKeystepSource,
    EgoExo4dSource,
    FolderSource,
    NtuSource,
    PhyWorldSource,
    Ssv2Source,
)
from tests.recipes.fixtures import write_demos

FRAMES, FPS = 20, 10.0
WITH_A_LINE = (
    DemonstrationsSource, EgoExo4dKeystepSource, EgoExo4dSource, FolderSource, NtuSource,
    PhyWorldSource, Ssv2Source,
)  # fmt: skip
OTHERS = [
    name
    for name, member in SourceConfig.get_known_choices().items()
    if member.__module__.startswith("latent_actions.") and member not in WITH_A_LINE
]
SSV2_VIDEOS = "20bn-something-something-v2"


def moving_square(seed: int, frames: int = FRAMES, size: int = 32) -> np.ndarray:
    """uint8 (frames, size, size, 3): a square that moves, on a color of its own."""
    rng = np.random.default_rng(seed)
    video = np.full((frames, size, size, 3), rng.integers(20, 160, 3), np.uint8)
    for t, frame in enumerate(video):
        frame[8 : 8 + size // 4, t % (size * 3 // 4) :][:, : size // 4] = 240
    return video


def write_clip(path: Path, seed: int, fps: float = FPS) -> Path:
    """A video file; .avi and .mov hold what an mp4 holds."""
    codec = "vp9" if path.suffix.lower() == ".webm" else "h264"
    made = path.with_name(f"made-{path.stem}.{'webm' if codec == 'vp9' else 'mp4'}")
    write_video(made, moving_square(seed), fps, codec=codec)
    made.rename(path)
    return path


def write_pictures(folder: Path, seed: int, frames: int = FRAMES) -> Path:
    """img_00001.jpg and so on, as LAPA dumps a clip."""
    folder.mkdir(parents=True)
    for number, frame in enumerate(moving_square(seed, frames), 1):
        Image.fromarray(frame).save(folder / f"img_{number:05d}.jpg", quality=95)
    return folder


def ssv2(root: Path, kind: str = "webm", count: int = 3) -> Ssv2Source:
    """`count` clips in each of train, validation and test. kind: webm, mp4, MP4 or pictures."""
    template, number = "Pushing [something] away", 0
    (root / "labels").mkdir(parents=True)
    (root / "labels/labels.json").write_text(json.dumps({"Pushing something away": "0"}))
    for split in ("train", "validation", "test"):
        rows = []
        for _ in range(count):
            clip = root / SSV2_VIDEOS / str(number)
            if kind == "pictures":
                write_pictures(clip, number)
            else:
                write_clip(clip.with_name(f"{number}.{kind}"), number)
            label = {"template": template, "label": f"pushing box {number} away"}
            rows.append({"id": str(number), **(label if split != "test" else {})})
            number += 1
        (root / "labels" / f"{split}.json").write_text(json.dumps(rows))
    return Ssv2Source(root=root)


def flat(root: Path, suffixes: tuple[str, ...] = (".mp4", ".MOV", ".webm")) -> FolderSource:
    """Videos without annotations: two of one name in two folders, one of pictures, any suffix."""
    for number, name in enumerate(("kitchen/1.mp4", "garage/1.mp4")):
        write_clip(root / name, number)
    for number, suffix in enumerate(suffixes, 2):
        write_clip(root / f"film {number}{suffix}", number)
    write_pictures(root / "dumped", 9)
    return FolderSource(root=root, text="doing something")


def labeled(root: Path) -> FolderSource:
    """<split>/<scene>/<verb>/<name>."""
    for number, split in enumerate(("train", "train", "val", "val")):
        write_clip(root / split / "kitchen" / "push_it" / f"{number}.mp4", number)
    return FolderSource(root=root)


def ntu(root: Path) -> NtuSource:
    """Videos in a folder that is linked, with an upper-case suffix; persons 1 (train) and 3 (val)."""
    away = root.with_name(f"{root.name}-elsewhere")
    for number, person in enumerate((1, 1, 3, 3)):
        repetition, camera = 1 + number // 2, 1 + number % 2
        name = f"S001C00{camera}P00{person}R00{repetition}A007_rgb.AVI"
        write_clip(away / name, number)
    root.mkdir(parents=True)
    (root / "videos").symlink_to(away)
    return NtuSource(root=root)


def ego_only(tree: Path, root: Path) -> EgoExo4dSource:
    """The synthetic Ego-Exo4D tree without its exo cameras."""
    shutil.copytree(tree / "egoexo4d", root)
    for video in root.rglob("*.mp4"):
        if not video.name.startswith("aria"):
            video.unlink()
    return EgoExo4dSource(root=root)


def phyworld(root: Path) -> PhyWorldSource:
    """HDF5 files of MP4 bytes."""
    generate(PhyWorldConfig(out=root, train=2, val=1, size=32, workers=1))
    return PhyWorldSource(root=root)


def libero(root: Path) -> DemonstrationsSource:
    """Two files in two folders whose demonstrations have equal names."""
    for number, folder in enumerate(("a", "b")):
        write_demos(root / folder, "open_the_drawer", count=3, steps=30, seed=number)
    return DemonstrationsSource(root=root, held_out=0.3)


def lerobot(root: Path) -> DemonstrationsSource:
    """Six episodes of a LeRobot v3 folder."""
    rng = np.random.default_rng(0)
    episodes = []
    for number in range(6):
        actions = rng.uniform(-1, 1, (30, 7))
        actions[:, 6] = rng.integers(0, 2, 30)
        state = rng.normal(size=(30, 8)).astype(np.float32)
        frames = moving_square(number, 30)
        episodes.append(RobotEpisode(str(number), "close it", frames, None, state, actions))
    write_lerobot(root, iter(episodes))
    return DemonstrationsSource(root=root, held_out=0.3)


def all_sources(folder: Path, tree: Path) -> dict[str, SourceConfig]:
    """A source of every kind, with videos below `folder`; one without a line gets those of `labeled`.
    tree: of `latent_actions/conftest.py`."""
    return {
        "ssv2 webm": ssv2(folder / "webm"),
        "ssv2 mp4": ssv2(folder / "mp4", "MP4"),
        "ssv2 pictures": ssv2(folder / "pictures", "pictures"),
        "flat": flat(folder / "flat"),
        "folder": labeled(folder / "labeled"),
        "ntu": ntu(folder / "ntu"),
        "egoexo4d": EgoExo4dSource(root=tree / "egoexo4d"),
        "ego only": ego_only(tree, folder / "ego"),
        "keysteps": EgoExo4dKeystepSource(root=tree / "egoexo4d"),
        "phyworld": phyworld(folder / "phyworld"),
        "libero": libero(folder / "libero"),
        "lerobot": lerobot(folder / "lerobot"),
        **{n: SourceConfig.get_choice_class(n)(root=folder / "labeled") for n in OTHERS},
    }
