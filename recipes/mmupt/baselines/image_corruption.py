"""Images as STIC spoils them, for descriptions that are to be wrong. Pure: bytes in, bytes out.

Deng et al. 2024, arXiv 2405.19716: strong colour jitter or lower resolution, in the strengths of the authors' code
(stic/generate_pref.py of yihedeng9/STIC).
"""

from io import BytesIO
from random import Random

from PIL import Image, ImageEnhance

from verl_ext.images import decode

# Pixels of the shorter side after scaling down.
SHORTER_SIDE = 20
# The factor of the brightness differs from 1 by at most this.
MAX_BRIGHTNESS_CHANGE = 0.5
# Hues are turned by at most this share of the circle.
MAX_HUE_SHIFT = 0.3


def corrupt(image: bytes, seed: str) -> bytes:
    """Spoil an encoded image in one of the two ways; `seed` draws the way and its strength.

    The PNG has the size at which the image is shown, so that a model sees as many patches of both.
    """
    random = Random(f"corrupt/{seed}")
    clean = decode(image).image
    spoilt = lower_resolution(clean) if random.random() < 0.5 else jitter_colors(clean, random)
    buffer = BytesIO()
    spoilt.save(buffer, format="PNG")
    return buffer.getvalue()


def lower_resolution(image: Image.Image) -> Image.Image:
    """Scale an image down until its shorter side has `SHORTER_SIDE` pixels, and back to its size."""
    factor = min(1.0, SHORTER_SIDE / min(image.size))
    width, height = (max(1, round(side * factor)) for side in image.size)
    small = image.resize((width, height), Image.Resampling.BILINEAR)
    return small.resize(image.size, Image.Resampling.BILINEAR)


def jitter_colors(image: Image.Image, random: Random) -> Image.Image:
    """Change the brightness of an image and turn all its hues, each by a draw within its limit."""
    change = random.uniform(-MAX_BRIGHTNESS_CHANGE, MAX_BRIGHTNESS_CHANGE)
    turn = round(255 * random.uniform(-MAX_HUE_SHIFT, MAX_HUE_SHIFT))
    hue, saturation, value = ImageEnhance.Brightness(image).enhance(1 + change).convert("HSV").split()
    turned = hue.point([(level + turn) % 256 for level in range(256)])
    return Image.merge("HSV", (turned, saturation, value)).convert("RGB")
