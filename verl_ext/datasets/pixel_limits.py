"""Chooses the size of images: pixel limits of training and evaluation, and margins.

qwen_vl_utils scales an image when it is read, and the model's processor scales it again, each with its own
`smart_resize`, to multiples of the side of a visual token: `patch_size * merge_size` px of the processor, 28 for
Qwen2.5-VL and GLM-4.1V, 32 for Qwen3-VL and Qwen3.5. Both raise if the long side exceeds 200 times the short side. The
first scaling may push a smaller ratio over that limit, and with a small `max_pixels` it reduces the short side to
nothing. Both enlarge small images.
"""

import math
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig
from PIL import Image

# Factor by which the short side grows until an image is accepted.
GROWTH = 1.02

# The largest ratio of the longer to the shorter side that both scalings accept.
LARGEST_RATIO = 200


def pixel_limits(data: DictConfig, training: bool) -> dict[str, int]:
    """Return `min_pixels` and `max_pixels` from the `data` block of a config, unless they are null.

    Training uses `data.min_pixels` and `data.max_pixels`, validation and evaluation `data.validation_min_pixels` and
    `data.validation_max_pixels`.
    """
    prefix = "" if training else "validation_"
    return set_limits(data[f"{prefix}min_pixels"], data[f"{prefix}max_pixels"])


def set_limits(min_pixels: int | None, max_pixels: int | None) -> dict[str, int]:
    """Return the limits that are not None, by name."""
    both = {"min_pixels": min_pixels, "max_pixels": max_pixels}
    return {name: value for name, value in both.items() if value is not None}


def token_side(image_processor: Any) -> int:
    """The side in px of the square that a visual token shows."""
    return int(image_processor.patch_size * image_processor.merge_size)


def visual_tokens(width: int, height: int, image_processor: Any, limits: Mapping[str, int]) -> int | None:
    """The tokens of an image after both scalings; None if one of them refuses it.

    Args:
        width, height: px of the image.
        image_processor: the processor of Qwen2-VL, a successor or GLM-4V.
        limits: `min_pixels` and `max_pixels` of the first scaling, if set.
    """
    from qwen_vl_utils.vision_process import smart_resize as scaled_when_read

    try:
        height, width = scaled_when_read(height, width, factor=token_side(image_processor), **limits)
        patches = image_processor.get_number_of_image_patches(height, width, {})
    # The first scaling reduces a side to nothing, or a scaling refuses the ratio.
    except (ValueError, ZeroDivisionError):
        return None
    return int(patches // image_processor.merge_size**2)


def largest_area(limits: Mapping[str, int], image_processor: Any) -> int:
    """An upper bound of the area of a scaled image, in the unit of the processor's own limits.

    It allows for rounding sides up to whole visual tokens, and for processors that count an image once per frame of a
    patch. `limits` must have `max_pixels`.
    """
    factor = token_side(image_processor)
    smallest = max(limits.get("min_pixels", 0), image_processor.size["shortest_edge"])
    both_sides = math.sqrt(smallest) * (math.sqrt(LARGEST_RATIO) + 1 / math.sqrt(LARGEST_RATIO))
    enlarged = math.ceil(smallest + factor * both_sides + factor**2)
    return image_processor.temporal_patch_size * max(limits["max_pixels"], enlarged)


def accepted_size(width: int, height: int, image_processor: Any, limits: Mapping[str, int]) -> tuple[int, int]:
    """The size of an image with the narrowest margins that both scalings accept; its own size if it needs none.

    Arguments as for `visual_tokens`.
    """
    while visual_tokens(width, height, image_processor, limits) is None and width != height:
        short = min(width, height)
        short = min(max(width, height), max(short + 1, int(short * GROWTH)))
        width, height = (short, height) if width < height else (width, short)
    return width, height


def with_margins(image: Image.Image, image_processor: Any, limits: Mapping[str, int]) -> Image.Image:
    """The image with the white margins that it needs to be accepted, see `accepted_size`."""
    return on_canvas(image, accepted_size(*image.size, image_processor, limits))


def on_canvas(image: Image.Image, canvas: tuple[int, int]) -> Image.Image:
    """The image in the middle of a white canvas of this width and height; the image itself if it fills the canvas."""
    if canvas == image.size:
        return image
    padded = Image.new("RGB", canvas, "white")
    padded.paste(image, ((canvas[0] - image.width) // 2, (canvas[1] - image.height) // 2))
    return padded
