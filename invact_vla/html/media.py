"""Pictures and videos as data URIs, so that the report is one file; long lists of videos as links."""

import base64
import io
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image

from invact_vla.html.render import Html
from invact_vla.untrusted.arrays import open_picture

MIME = {
    ".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp",
    ".mp4": "video/mp4", ".webm": "video/webm",
}  # fmt: skip
MAX_VIDEO = 32 << 20  # bytes; an episode of LIBERO has about 200 kB
MAX_PICTURE_PX = 1100  # wider pictures are scaled down
JPEG_QUALITY = 82
MOVING_QUALITY, PAUSE_MS = 50, 400  # of moving pictures
POSTER_QUALITY = 60  # hundreds of them may be on one page


def data_uri(content: bytes, suffix: str) -> str:
    """The bytes of a file with this suffix as a data URI."""
    return f"data:{MIME[suffix]};base64,{base64.b64encode(content).decode()}"


def picture(path: Path, alt: str) -> Html:
    """An <img> of a picture file, at most MAX_PICTURE_PX wide, as PNG or JPEG, the smaller one."""
    with open_picture(str(path), path) as opened:
        image = opened.convert("RGB")
    if image.width > MAX_PICTURE_PX:
        height = round(image.height * MAX_PICTURE_PX / image.width)
        image = image.resize((MAX_PICTURE_PX, height), Image.Resampling.LANCZOS)
    return _img(image, alt)


def frame(array: np.ndarray, alt: str) -> Html:
    """An <img> of one frame, uint8 (H, W, 3)."""
    return _img(Image.fromarray(array), alt)


def video(path: Path, label: str) -> Html:
    """A <video> of an mp4 or webm file: silent, looping, started by the reader; a sentence in the place
    of one above MAX_VIDEO, since the page holds it."""
    size = path.stat().st_size
    if size > MAX_VIDEO:
        words = f"{label}: {size >> 20} MiB, above the {MAX_VIDEO >> 20} MiB that a page holds"
        return Html('<p class="soft">{}</p>').format(words)
    uri = data_uri(path.read_bytes(), path.suffix)
    return _video("metadata", label, Html(""), uri)


def moving_picture(frames: np.ndarray, seconds: float, alt: str) -> Html:
    """An <img> of frames uint8 (T, H, W, 3) that plays for `seconds`, again and again: a WebP of some
    kilobytes, and no player."""
    images, encoded = [Image.fromarray(frame) for frame in frames], io.BytesIO()
    step_ms = max(20, round(1000 * seconds / len(images)))
    durations = [step_ms] * (len(images) - 1) + [step_ms + PAUSE_MS]  # the end is seen to be one
    images[0].save(
        encoded, "WEBP", save_all=True, append_images=images[1:], duration=durations, loop=0,
        quality=MOVING_QUALITY, method=4,
    )  # fmt: skip
    uri = data_uri(encoded.getvalue(), ".webp")
    values = alt, images[0].width, images[0].height, uri
    return Html('<img alt="{}" width="{}" height="{}" src="{}">').format(*values)


def linked_video(href: str, poster: np.ndarray | None, label: str) -> Html:
    """A <video> that is loaded from beside the page when the reader starts it.

    href: path relative to the page. poster: uint8 (H, W, 3), shown until then, inside the page.
    """
    shown = Html("") if poster is None else Html(' poster="{}"').format(_jpeg_uri(poster))
    return _video("none", label, shown, quote(href))


def _video(preload: str, label: str, poster: Html, source: str) -> Html:
    return Html(
        '<video controls loop muted playsinline preload="{}" aria-label="{}"{} src="{}"></video>'
    ).format(preload, label, poster, source)


def _jpeg_uri(array: np.ndarray) -> str:
    encoded = io.BytesIO()
    Image.fromarray(array).save(encoded, "JPEG", quality=POSTER_QUALITY, optimize=True)
    return data_uri(encoded.getvalue(), ".jpg")


def _img(image: Image.Image, alt: str) -> Html:
    encoded = {".png": io.BytesIO(), ".jpg": io.BytesIO()}
    image.save(encoded[".png"], "PNG", optimize=True)
    image.save(encoded[".jpg"], "JPEG", quality=JPEG_QUALITY, optimize=True)
    suffix = min(encoded, key=lambda kind: len(encoded[kind].getvalue()))
    uri = data_uri(encoded[suffix].getvalue(), suffix)
    values = alt, image.width, image.height, uri
    return Html('<img alt="{}" width="{}" height="{}" src="{}">').format(*values)
