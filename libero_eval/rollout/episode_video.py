"""Videos of episodes: small, with instruction, step and outcome written above the picture, where a
player's controls do not cover them.
"""

from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from invact_vla.data.video.video_io import write_video
from libero_eval.results.rows import Outcome

FPS = 20  # LIBERO's control rate: stride 1 plays in real time
HOLD_S = 1.5  # how long the last picture stays
CRF = 30
LINE_PX = 13
FONT_PX = 11
PAPER, INK = (250, 250, 247), (40, 40, 45)
COLORS = {"success": (22, 130, 70), "failure": (190, 60, 40), "error": (150, 20, 130)}


def video_name(task_id: int, init_index: int) -> str:
    """Where the video of an episode lies inside the run folder."""
    return f"videos/task{task_id:02d}_init{init_index:03d}.mp4"


@dataclass(frozen=True, kw_only=True)
class VideoConfig:
    """Which episodes are filmed, and how. Filming changes no outcome."""

    per_task: int = 1  # the first episodes of each task; 0 films none of them
    first_success: bool = True  # and the first success of each task (that episode is run again)
    stride: int = 2  # film every n-th step; the video plays n times as fast as the robot moved
    size_px: int = 160  # width and height of the picture

    def __post_init__(self) -> None:
        if self.per_task < 0 or self.stride < 1 or self.size_px < 32 or self.size_px % 2:
            raise ValueError("videos: need per_task >= 0, stride >= 1, an even size_px >= 32")


class EpisodeVideo:
    """Collects the frames of one episode and writes an mp4 when its outcome is known."""

    def __init__(
        self, path: Path, instruction: str = "", stride: int = 1, size_px: int = 160
    ) -> None:
        """instruction: written above the picture; may be set until the end. The rest: see
        `VideoConfig`."""
        self.path, self.stride, self.size_px = path, stride, size_px
        self.instruction = instruction
        self._font = ImageFont.load_default(size=FONT_PX)
        self._frames: list[tuple[int, np.ndarray]] = []

    def wants(self, step: int) -> bool:
        """Whether the frame seen before this step belongs into the video."""
        return step % self.stride == 0

    def add(self, step: int, picture: np.ndarray) -> None:
        """Keep a frame. picture: uint8 (H, W, 3), upright."""
        image = Image.fromarray(picture).resize(
            (self.size_px, self.size_px), Image.Resampling.BICUBIC
        )
        self._frames.append((step, np.asarray(image)))

    def save(self, outcome: Outcome) -> None:
        """Write the video; without a frame, nothing is written."""
        if not self._frames:
            return
        pictures = [self._compose(step, frame, None) for step, frame in self._frames]
        step, frame = self._frames[-1]
        pictures += [self._compose(step, frame, outcome)] * round(FPS * HOLD_S)
        write_video(self.path, np.stack(pictures), FPS, "h264", CRF)

    def _compose(self, step: int, frame: np.ndarray, outcome: Outcome | None) -> np.ndarray:
        """The frame below a strip of text. Returns uint8 (H, W, 3) with even H and W."""
        lines = wrap(self.instruction, width=round(self.size_px / (FONT_PX * 0.52)))
        strip = LINE_PX * (len(lines) + 1) + 5
        strip += strip % 2
        canvas = Image.new("RGB", (self.size_px, strip + self.size_px), PAPER)
        canvas.paste(Image.fromarray(frame), (0, strip))
        draw = ImageDraw.Draw(canvas)
        for number, line in enumerate(lines):
            draw.text((4, 2 + LINE_PX * number), line, INK, self._font)
        speed = f"  {self.stride}x" if self.stride > 1 else ""
        y = 2 + LINE_PX * len(lines)
        draw.text((4, y), f"step {step}{speed}", (120, 120, 125), self._font)
        if outcome is not None:
            width = draw.textlength(outcome, self._font)
            draw.text((self.size_px - width - 4, y), outcome, COLORS[outcome], self._font)
        return np.asarray(canvas)
