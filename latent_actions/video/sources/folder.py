"""A plain folder of short videos, one action each: the way in for one's own recordings.

    <root>/<split>/<scene>/<verb>/<name>.<camera>.mp4      (or .webm, .avi, .mkv, .mov)

`<camera>` is optional and stands after the name's last dot: one that starts with "ego" gives an ego
clip, anything else an exo clip. Files of one scene and verb that differ in the camera only are views
of one moment.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from invact_vla.core.errors import UserError
from latent_actions.video.records import ClipRecord, Split
from latent_actions.video.skip_report import SkipReport
from latent_actions.video.source import SourceConfig, check_folder

SUFFIXES = (".mp4", ".webm", ".avi", ".mkv", ".mov")
LAYOUT = "<split>/<scene>/<verb>/<name>[.<camera>].mp4 with split train or val"


@SourceConfig.register_subclass("folder")
@dataclass(frozen=True, kw_only=True)
class FolderSource(SourceConfig):
    """Whole video files as clips, labeled by their folders."""

    def index(self, split: Split) -> tuple[list[ClipRecord], SkipReport]:
        dropped = SkipReport()
        rows = [self._row(path, split) for path in self._files(split)]
        return self.whole_videos(rows, dropped), dropped

    def _files(self, split: Split) -> list[Path]:
        folder = self.root / split
        check_folder(folder, LAYOUT)
        files = sorted(p for p in folder.glob("*/*/*") if p.suffix.lower() in SUFFIXES)
        if not files:
            raise UserError(f"no videos below {folder}: expected {LAYOUT}")
        return files

    def _row(self, path: Path, split: Split) -> dict[str, Any]:
        name, _, camera = path.stem.rpartition(".")
        if not name:  # no dot: no camera
            name, camera = camera, ""
        verb, scene = path.parent.name, path.parent.parent.name
        moment = f"{scene}/{verb}/{name}"
        return {
            "clip_id": path.relative_to(self.root / split).with_suffix("").as_posix(),
            "moment_id": moment,
            "take": moment,
            "scene": scene,
            "view": "ego" if camera.startswith("ego") else "exo",
            "camera": camera or "cam01",
            "verb": verb.replace("_", " "),
            "text": verb.replace("_", " "),
            "split": split,
            "video": path,
        }
