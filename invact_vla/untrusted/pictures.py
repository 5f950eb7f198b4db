"""Pictures of strangers: looked at before they are decoded."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from invact_vla.core.errors import UserError
from invact_vla.core.limits import short

PICTURES = ("PNG", "JPEG", "WEBP", "BMP")  # those that are read
MAX_PIXELS = 9_500_000  # of a frame: 4K film has 8.3 and 8.8 million


@contextmanager
def open_picture(where: str, source: bytes | Path) -> Iterator[Image.Image]:
    """A picture that is not decoded yet; whatever is wrong with it, also later in the block, is a
    UserError that begins with `where`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our bound is lower
            image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source,
                               formats=PICTURES)  # fmt: skip
        with image:
            check_size(where, image.height, image.width)
            yield image
    except (
        OSError,
        ValueError,
        SyntaxError,
        ArithmeticError,
        Image.DecompressionBombError,
    ) as error:
        raise UserError(
            f"{where}: a picture cannot be decoded ({short(error)}): fetch it again"
        ) from error


def check_size(where: str, height: int, width: int) -> None:
    """UserError for frames too large to be decoded."""
    if height * width > MAX_PIXELS:
        raise UserError(
            f"{where}: frames of {width} x {height} px, more than the {MAX_PIXELS} px that are decoded: "
            "scale them down first"
        )
