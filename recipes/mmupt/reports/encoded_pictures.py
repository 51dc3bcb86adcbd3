"""Re-encodes untrusted image files as clean PNG or JPEG for a browser."""

import io

from PIL import Image

from verl_ext.images import decode

# A picture whose thumbnail has at most this many colours is a drawing, which JPEG would blur.
DRAWING_COLOURS = 256


def encode_anew(encoded: bytes, longest_side: int | None = None) -> tuple[str, bytes]:
    """Decode a picture, encode it again as PNG (drawings) or JPEG (photos), and return media type and bytes.

    `longest_side` limits width and height of the result, in px; None keeps the size.

    Raises:
        ImageError: the picture cannot be decoded.
    """
    image = decode(encoded).image
    if longest_side is not None:
        image.thumbnail((longest_side, longest_side))
    sample = image.copy()
    sample.thumbnail((128, 128), Image.Resampling.NEAREST)
    is_drawing = sample.getcolors(DRAWING_COLOURS) is not None
    buffer = io.BytesIO()
    if is_drawing:
        image.save(buffer, "PNG", compress_level=3)
    else:
        image.save(buffer, "JPEG", quality=90)
    return ("image/png" if is_drawing else "image/jpeg"), buffer.getvalue()
