"""Images as STIC spoils them, for descriptions that are to be wrong. Pure: bytes in, bytes out.

Deng et al. 2024, arXiv 2405.19716: strong colour jitter or lower resolution, in the strengths of the authors' code
(stic/generate_pref.py of yihedeng9/STIC).
"""

from io import BytesIO
from random import Random

from PIL import Image, ImageEnhance

from verl_ext.images import decode

# Pixels that are left of the shorter side.
SHORTER_SIDE = 20
# Brightness is multiplied by a factor that is as far from 1 at most.
MAX_BRIGHTNESS_CHANGE = 0.5
# Hues are turned by as large a share of the whole circle at most.
MAX_HUE_SHIFT = 0.3


def corrupt(image: bytes, seed: str) -> bytes:
    """Spoil an encoded image by one of the two, drawn like its strength by `seed`; returns a PNG.

    Of the size at which the image is shown, so that a model sees as many patches of both.
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
