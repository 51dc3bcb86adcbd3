"""STIC's image corruptions, which make the model's descriptions wrong on purpose. Pure: bytes in, bytes out.

Deng et al. 2024, arXiv 2405.19716: strong colour jitter or low resolution, as strong as in the authors' code
(stic/generate_pref.py of yihedeng9/STIC).
"""

from io import BytesIO
from random import Random

from PIL import Image, ImageEnhance

from verl_ext.images import decode

# Shorter side after scaling down, in pixels.
SHORTER_SIDE = 20
# Largest deviation of the brightness factor from 1.
MAX_BRIGHTNESS_CHANGE = 0.5
# Largest hue rotation, as a share of the colour circle.
MAX_HUE_SHIFT = 0.3


def corrupt(image: bytes, seed: str) -> bytes:
    """Corrupt an encoded image; `seed` draws the kind of corruption and its strength.

    The PNG has the size at which the image is shown, so a model sees equally many patches of both.
    """
    random = Random(f"corrupt/{seed}")
    clean = decode(image).image
    corrupted = lower_resolution(clean) if random.random() < 0.5 else jitter_colors(clean, random)
    buffer = BytesIO()
    corrupted.save(buffer, format="PNG")
    return buffer.getvalue()


def lower_resolution(image: Image.Image) -> Image.Image:
    """Scale an image down to a shorter side of `SHORTER_SIDE` pixels and back to its size."""
    factor = min(1.0, SHORTER_SIDE / min(image.size))
    width, height = (max(1, round(side * factor)) for side in image.size)
    small = image.resize((width, height), Image.Resampling.BILINEAR)
    return small.resize(image.size, Image.Resampling.BILINEAR)


def jitter_colors(image: Image.Image, random: Random) -> Image.Image:
    """Change the brightness of an image and rotate its hues, each by a random amount within its limit."""
    change = random.uniform(-MAX_BRIGHTNESS_CHANGE, MAX_BRIGHTNESS_CHANGE)
    shift = round(255 * random.uniform(-MAX_HUE_SHIFT, MAX_HUE_SHIFT))
    hue, saturation, value = ImageEnhance.Brightness(image).enhance(1 + change).convert("HSV").split()
    shifted = hue.point([(level + shift) % 256 for level in range(256)])
    return Image.merge("HSV", (shifted, saturation, value)).convert("RGB")
