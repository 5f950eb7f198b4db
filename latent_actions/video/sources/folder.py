"""A plain folder of videos: the way in for one's own recordings.

    <root>/<split>/<scene>/<verb>/<name>.<camera>.mp4      (or any other container, in any case; splits
                                                           may be named training, validation, testing)
    <root>/**/<name>.<camera>.mp4                          without annotations

`<camera>` is optional and stands after the name's last dot: one that starts with "ego" gives an ego
clip, anything else an exo clip. Files that differ in the camera only are views of one moment. A folder
of numbered pictures counts as a video; linked folders are followed.
"""

from collections import Counter
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import ClassVar

from invact_vla.core.errors import UserError
from invact_vla.data.video.frames import list_videos
from invact_vla.data.video.pictures import PICTURES_FPS, at_rate
from latent_actions.video.records import ClipRecord, Split
from latent_actions.video.skip_report import SkipReport
from latent_actions.video.source import (
    SourceConfig,
    check_folder,
    check_fraction,
    check_rate,
    held_out,
)

SPLIT_NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing"),
}  # fmt: skip
LAYOUT = "<split>/<scene>/<verb>/<name>[.<camera>].mp4 with split train, val or test"


@SourceConfig.register_subclass("folder")
@dataclass(frozen=True, kw_only=True)
class FolderSource(SourceConfig):
    """Whole video files as clips, labeled by their folders where these are a split, a scene and a verb.

    Without folders of splits nothing is taken from the names: verb and scene are not known, the text is
    the option's, and a part of the videos is "val"."""

    splits: ClassVar[tuple[Split, ...]] = ("train", "val", "test")

    text: str = ""  # what happens, in words, in videos whose folders do not say it
    held_out: float = 0.1  # fraction of the videos that is val, where no folders name splits
    pictures_fps: float = PICTURES_FPS  # rate of folders of pictures, which do not tell

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction("held_out", self.held_out)
        check_rate("pictures_fps", self.pictures_fps)

    def index(self, split: Split) -> tuple[list[ClipRecord], SkipReport]:
        base, videos = self._videos(split)
        names = [_Name.of(video.relative_to(base), labeled=base != self.root) for video in videos]
        count = Counter((name.moment, name.camera) for name in names)
        dropped, clips = SkipReport(), []
        for video, name in zip(videos, names, strict=True):
            path = video.relative_to(base)
            alone = count[name.moment, name.camera] == 1  # a.mp4 and a.mov: no views of one moment
            moment = name.moment if alone else path.as_posix()
            clips.append(
                ClipRecord(
                    clip_id=(path.parent / path.stem if alone else path).as_posix(),
                    video=at_rate(video, self.pictures_fps),
                    split=split,
                    text=name.verb or self.text,
                    verb=name.verb,
                    moment_id=moment,
                    take=moment,
                    scene=name.scene,
                    view="ego" if name.camera.startswith("ego") else "exo",
                    camera=name.camera,
                )
            )
        return self.whole_videos(clips, dropped), dropped

    def _videos(self, split: Split) -> tuple[Path, list[Path]]:
        """The folder of a split, or the root if no folders name splits, and the videos of the split."""
        check_folder(self.root, LAYOUT)
        named = self._split_folders()
        base = named.get(split, self.root / split) if named else self.root
        check_folder(base, LAYOUT)
        videos = list_videos(base)
        if not videos:
            raise UserError(f"no videos below {base}: expected {LAYOUT}, or videos without folders")
        if not named:
            first: dict[str, str] = {}  # video of each moment, which decides for all views of it
            for video in videos:
                first.setdefault(_moment(base, video), video.relative_to(base).as_posix())
            val = held_out(list(first.values()), self.held_out)
            wanted = {"train": False, "val": True}.get(split)
            videos = [v for v in videos if (first[_moment(base, v)] in val) is wanted]
        return base, videos

    def _split_folders(self) -> dict[Split, Path]:
        """The folders that are splits; none where there is only one and its name means other things
        too, such as "training". UserError where two are one split."""
        found: dict[Split, Path] = {}
        folders = sorted(path for path in self.root.iterdir() if path.is_dir())
        for folder, (split, names) in product(folders, SPLIT_NAMES.items()):
            if folder.name.lower() not in names:
                continue
            if split in found:
                raise UserError(
                    f"{found[split]} and {folder} are both the split {split!r}: keep one"
                )
            found[split] = folder
        sure = any(folder.name == split for split, folder in found.items())
        return found if sure or len(found) > 1 else {}


def _moment(base: Path, video: Path) -> str:
    return _Name.of(video.relative_to(base), labeled=False).moment


@dataclass(frozen=True)
class _Name:
    """What the path of a video says."""

    moment: str
    camera: str
    scene: str = ""
    verb: str = ""

    @classmethod
    def of(cls, path: Path, labeled: bool) -> "_Name":
        """path: below the folder of the split. labeled: that folder names a split."""
        name, _, camera = path.stem.rpartition(".")
        if not name:  # no dot: no camera
            name, camera = camera, ""
        moment, camera = (path.parent / name).as_posix(), camera or "cam01"
        if not labeled or len(path.parts) != 3:
            return cls(moment, camera)
        return cls(moment, camera, path.parts[0], path.parts[1].replace("_", " "))
