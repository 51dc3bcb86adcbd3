"""Encoded pictures for tests: valid ones that differ by seed, and one per kind of image problem."""

import io
from random import Random
from typing import Any

from PIL import Image


def encode(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=form, **options)
    return buffer.getvalue()


def picture(seed: int = 0, size: tuple[int, int] = (64, 48), form: str = "PNG") -> bytes:
    """Return a smooth random picture that depends on the seed."""
    random = Random(seed)
    corners = Image.new("RGB", (4, 4))
    corners.putdata([tuple(random.randrange(256) for _ in range(3)) for _ in range(16)])
    return encode(corners.resize(size, Image.Resampling.BICUBIC), form)


GOOD = picture()
BAD = {
    "no image": b"",
    "unreadable image": b"this is no picture",
    "truncated image": picture(size=(300, 300), form="JPEG")[:-1500],
    "extreme aspect ratio": picture(size=(28 * 201, 28)),
    "image mode": encode(Image.new("F", (64, 64)), "TIFF"),
}
