"""Frames -> pixel_values: one object for training and evaluation, and preprocessor_config.json.

Training images pass through JPEG and Lanczos3 once and a random crop; evaluation repeats the first
two and crops the center. The statistics are those serialized in `tvf_normalize_params` if any:
published checkpoints carry bfloat16-rounded ones, and were fine-tuned with them.

Axis letters: B images, H W pixels, S side of the model's images, C channels = 3 per tower.
"""

from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from invact_vla.core.errors import UserError
from invact_vla.core.files import read_json, write_json
from invact_vla.openvla import images
from invact_vla.openvla.config import OpenVLAConfig

FILE = "preprocessor_config.json"
DINO = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SIGLIP = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_BICUBIC = 3  # PIL's number
Resize = Literal["lanczos3", "bicubic"]


@dataclass(frozen=True, kw_only=True)
class ImageProcessor:
    """How frames become pixel_values."""

    size: int = 224  # side in px
    means: tuple[tuple[float, ...], ...] = (DINO[0], SIGLIP[0])  # per tower and channel
    stds: tuple[tuple[float, ...], ...] = (DINO[1], SIGLIP[1])  # per tower and channel
    strategy: str = "resize-naive"  # or letterbox, resize-crop: for images of other shapes
    resize: Resize = "lanczos3"  # bicubic: Pillow's, as the published processor; obeys `strategy`
    jpeg: bool = True  # JPEG round trip of raw frames
    crop: bool = True  # 0.9 area: center in evaluation, random in training
    jitter: images.Jitter = field(default_factory=images.Jitter)  # changes of colors in training

    def __post_init__(self) -> None:
        if self.strategy not in ("resize-naive", "letterbox", "resize-crop"):
            raise ValueError(f"unknown image_resize_strategy {self.strategy!r}")
        if self.resize not in get_args(Resize):
            raise ValueError(f"resize must be one of {get_args(Resize)}, got {self.resize!r}")

    @classmethod
    def of(cls, config: OpenVLAConfig, jpeg: bool = True, crop: bool = True) -> "ImageProcessor":
        """Fresh processor of a model: DINO and SigLIP statistics, or SigLIP's for one tower."""
        means, stds = zip(*(DINO, SIGLIP)[-config.n_towers :], strict=True)
        size, strategy = config.image_size, config.image_resize_strategy
        return cls(size=size, means=means, stds=stds, strategy=strategy, jpeg=jpeg, crop=crop)

    def published(self) -> "ImageProcessor":
        """The same statistics with the published processor's own treatment of a raw picture: bicubic,
        no JPEG, no crop. LIBERO's evaluation alone does what the defaults here do."""
        return replace(self, resize="bicubic", jpeg=False, crop=False)

    def prepare(self, frames: np.ndarray) -> np.ndarray:
        """Upright uint8 (B, H, W, 3) -> uint8 (B, S, S, 3): JPEG and resizing, nothing random.

        Deterministic and per image, so that training may do it once and store the result.
        """
        if self.jpeg:
            frames = np.stack([images.jpeg_round_trip(np.ascontiguousarray(f)) for f in frames])
        if self.resize == "bicubic":
            return np.stack([self._bicubic(Image.fromarray(f)) for f in frames])
        return images.resize_lanczos3(frames, self.size)

    @property
    def preparation(self) -> dict[str, Any]:
        """What `prepare` depends on: the identity of frames that were prepared and stored."""
        strategy = {"strategy": self.strategy} if self.resize == "bicubic" else {}
        return {"size": self.size, "jpeg": self.jpeg, "resize": self.resize, **strategy}

    def pixel_values(self, prepared: np.ndarray, draws: np.ndarray | None = None) -> Tensor:
        """uint8 (B, S, S, 3) from `prepare` -> float32 (B, C, S, S).

        Without `draws`: the center crop of evaluation. With random numbers in [0, 1), float32 (B,
        `images.AUGMENTATION_DRAWS`): random crop and colors.
        """
        if draws is None:
            cropped = images.center_crop(prepared) if self.crop else prepared
            return self.normalize(torch.from_numpy(images.to_unit(cropped)))
        area = images.CROP_AREA if self.crop else None
        frames, drawn = (torch.from_numpy(np.ascontiguousarray(x)) for x in (prepared, draws))
        return self.normalize(images.augment(frames, drawn, self.jitter, area))

    def pixel_values_of_views(
        self, prepared: np.ndarray, draws: np.ndarray | None = None
    ) -> Tensor:
        """uint8 (B, V, S, S, 3), V pictures of each sample -> float32 (B, V C, S, S); draws: (B, V, 6)
        random numbers of the augmentation, or None."""
        drawn = [None if draws is None else draws[:, v] for v in range(prepared.shape[1])]
        return torch.cat([self.pixel_values(prepared[:, v], d) for v, d in enumerate(drawn)], dim=1)

    def __call__(self, frames: np.ndarray) -> Tensor:
        """Raw upright frames uint8 (B, H, W, 3) -> pixel_values, as in evaluation."""
        return self.pixel_values(self.prepare(frames))

    def normalize(self, unit: Tensor) -> Tensor:
        """float32 [0, 1] (B, S, S, 3) -> (B, C, S, S), each tower's statistics in turn."""
        pixels = rearrange(unit, "b h w c -> b c h w")
        scale = torch.tensor(self.stds).reshape(-1, 3, 1, 1)
        shift = torch.tensor(self.means).reshape(-1, 3, 1, 1)
        out = (pixels[:, None] - shift) / scale
        return rearrange(out, "b t c h w -> b (t c) h w").contiguous()

    def process(self, image: Image.Image) -> Tensor:
        """The published processor on one RGB image of any shape -> (1, C, S, S)."""
        unit = images.to_unit(self._bicubic(image.convert("RGB"))[None])
        return self.normalize(torch.from_numpy(unit))

    def _bicubic(self, image: Image.Image) -> np.ndarray:
        """RGB image -> uint8 (S, S, 3)."""
        return np.asarray(_resize(image, self.size, self.strategy, self.means[0]))

    def save(self, folder: Path) -> None:
        """Write preprocessor_config.json in the published layout."""
        towers, size = len(self.means), self.size
        resize = {
            "size": [size, size],
            "interpolation": _BICUBIC,
            "antialias": True,
            "max_size": None,
        }
        own = {"resize": self.resize, "jpeg": self.jpeg, "crop": self.crop, **asdict(self.jitter)}
        write_json(Path(folder) / FILE, {
            "image_processor_type": "PrismaticImageProcessor",
            "processor_class": "PrismaticProcessor",
            "use_fused_vision_backbone": towers == 2,
            "image_resize_strategy": self.strategy,
            "input_sizes": [[3, size, size]] * towers,
            "interpolations": ["bicubic"] * towers,
            "means": self.means,
            "stds": self.stds,
            "tvf_do_letterbox": self.strategy == "letterbox",
            "tvf_letterbox_fill": None,
            "tvf_resize_params": [resize] * towers,
            "tvf_crop_params": [{"output_size": [size, size]}] * towers,
            "tvf_normalize_params": [{"inplace": False, "mean": mean, "std": std}
                                     for mean, std in zip(self.means, self.stds, strict=True)],
            "invact": own,
        })  # fmt: skip

    @classmethod
    def load(cls, folder: Path) -> "ImageProcessor":
        """Read preprocessor_config.json; published ones have no "invact" and get JPEG and crop."""
        path = Path(folder) / FILE
        value = read_json(path)
        try:
            serialized = value.get("tvf_normalize_params")
            means = [p["mean"] for p in serialized] if serialized else value["means"]
            stds = [p["std"] for p in serialized] if serialized else value["stds"]
            own = dict(value.get("invact", {}))
            colors = {f.name: own.pop(f.name) for f in fields(images.Jitter) if f.name in own}
            own |= {"jitter": images.Jitter(**colors), "strategy": value["image_resize_strategy"]}
            size = value["input_sizes"][0][-1]
            return cls(
                size=size, means=tuple(map(tuple, means)), stds=tuple(map(tuple, stds)), **own
            )
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{path}: not a PrismaticImageProcessor config ({error!r})") from error


def _resize(image: Image.Image, size: int, strategy: str, fill: tuple[float, ...]) -> Image.Image:
    """One RGB image -> size x size, bicubic as in Pillow. letterbox pads with the mean color."""
    bicubic = Image.Resampling.BICUBIC
    if strategy == "resize-naive":
        return image.resize((size, size), bicubic)
    if strategy == "letterbox":
        side = max(image.size)
        square = Image.new("RGB", (side, side), tuple(int(255 * x) for x in fill))
        square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        return square.resize((size, size), bicubic)
    ratio = size / min(image.size)
    width, height = (max(size, int(ratio * x)) for x in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    resized = image.resize((width, height), bicubic)
    return resized.crop((left, top, left + size, top + size))
