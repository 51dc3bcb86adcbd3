"""An image of a row that stays encoded until its pixels are needed.

A trainer holds all rows of a step and sends them to the agent loop workers. Decoded, a pixel takes 3 bytes pickled and
4 in Pillow; a JPEG photo takes a tenth of that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from verl_ext.datasets.message_parts import copied, images_in
from verl_ext.datasets.pixel_limits import on_canvas
from verl_ext.images import decode


@dataclass(frozen=True)
class EncodedImage:
    """`encoded`: the bytes of an image file. `canvas`: width and height, in px, including the margins that it needs."""

    encoded: bytes
    canvas: tuple[int, int]

    def decode(self) -> Image.Image:
        """Return the RGB image in the middle of its canvas; raises ImageError like `verl_ext.images.decode`."""
        return on_canvas(decode(self.encoded).image, self.canvas)


def with_decoded_images(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a copy of messages with all encoded images decoded."""
    decoded = copied(messages)
    for part in images_in(decoded):
        if isinstance(part.get("image"), EncodedImage):
            part["image"] = part["image"].decode()
    return decoded
