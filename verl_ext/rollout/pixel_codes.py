"""Stores pixel values as the 8-bit pixels that they are computed from: an eighth of the bytes, restored exactly.

The image processors of Qwen's vision-language models compute (pixel / 255 - mean) / std in fp32 for each channel and
repeat an image as `temporal_patch_size` equal frames (transformers/models/qwen2_vl/image_processing_qwen2_vl.py). A
channel therefore has at most 256 distinct values, so a palette and one byte per pixel of one frame encode it.
`PixelCoder.processor` skips this computation, which takes most of a processor's time, and returns the pixels in the
same layout.
"""

import copy
from collections.abc import Mapping
from math import ceil
from typing import Any

import numpy as np
import torch
from PIL import Image

PIXELS, CODES, PALETTE, FRAMES = "pixel_values", "pixel_codes", "pixel_palette", "pixel_frames"
CODES_PER_CHANNEL = 256
# Patches expanded at a time, few enough for intermediate results to stay in a core's cache.
PATCHES = 128
# Arguments of an image processor that change how it computes values from pixels.
COMPUTATION = ("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")


class PixelCoder:
    """Encodes the pixel values of one processor.

    Attributes:
        processor: a copy of the processor that returns pixels as uint8 in place of pixel values.
    """

    def __init__(self, processor: Any, palette: np.ndarray, frames: int) -> None:
        self.processor = processor
        self._palette = torch.from_numpy(palette)
        self._frames = frames

    @classmethod
    def of(cls, processor: Any, arguments: Mapping[str, Any] | None = None) -> "PixelCoder | None":
        """Return the coder of a processor that is called with these arguments.

        None if the processor is unsupported or the coder does not restore the pixel values of two test images exactly.
        """
        images: Any = getattr(processor, "image_processor", None)
        needed = ("image_mean", "merge_size", "patch_size", "temporal_patch_size")
        if any(getattr(images, name, None) is None for name in needed):
            return None
        if not {*COMPUTATION}.isdisjoint(arguments or {}):
            return None
        pixels = copy.copy(images)
        pixels.do_rescale = pixels.do_normalize = False
        colors = _every_color(images.patch_size * images.merge_size)
        values, codes = (
            dict(process(images=[colors], do_resize=False, return_tensors="pt"))[PIXELS] for process in (images, pixels)
        )
        palette = _palette(values, codes, len(images.image_mean), images.temporal_patch_size)
        if palette is None:
            return None
        pixel_processor = copy.copy(processor)
        pixel_processor.image_processor = pixels
        coder = cls(pixel_processor, palette, images.temporal_patch_size)
        # The processor resizes at least the second image.
        for image in (colors, colors.resize((colors.width + 7, 2 * colors.height + 3))):
            expected = dict(images(images=[image], return_tensors="pt"))
            restored = expand(coder.compact(dict(pixels(images=[image], return_tensors="pt"))))
            if restored.keys() != expected.keys() or not torch.equal(restored[PIXELS], expected[PIXELS]):
                return None
        return coder

    def compact(self, features: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Replace `pixel_values` in the output of `processor` with codes and a palette.

        `pixel_values` is (patches, channels x frames x pixels), uint8; `expand` returns fp32 values in this shape.
        """
        others = {name: value for name, value in features.items() if name != PIXELS}
        pixels = features[PIXELS].view(len(features[PIXELS]), len(self._palette), self._frames, -1)
        return {
            **others,
            CODES: pixels[:, :, 0].contiguous(),
            PALETTE: self._palette,
            FRAMES: torch.tensor([self._frames]),
        }


def _every_color(factor: int) -> Image.Image:
    """Return a square image with all 256 values in each channel and a side that is a multiple of `factor`."""
    side = factor * ceil(16 / factor)
    values = np.arange(side * side).reshape(side, side)
    return Image.fromarray(np.stack([values, values + 85, values + 170], axis=-1).astype(np.uint8))


def _palette(values: torch.Tensor, codes: torch.Tensor, channels: int, frames: int) -> np.ndarray | None:
    """Return the value of each code by channel, (channels, 256), fp32; None if pixels have a different layout."""
    if (values.dtype, codes.dtype) != (torch.float32, torch.uint8) or values.shape != codes.shape:
        return None
    if values.dim() != 2 or values.shape[1] % (channels * frames):
        return None
    palette: np.ndarray = np.full((channels, CODES_PER_CHANNEL), np.nan, dtype=np.float32)
    by_channel = (tensor.numpy().reshape(len(tensor), channels, -1).swapaxes(0, 1) for tensor in (values, codes))
    for channel, channel_values, channel_codes in zip(palette, *by_channel, strict=True):
        channel[channel_codes] = channel_values
    return None if np.isnan(palette).any() else palette


def expand(features: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Restore the features that the processor itself returns; features without codes stay unchanged."""
    if CODES not in features:
        return dict(features)
    codes, palette = features[CODES].numpy(), features[PALETTE].numpy()
    patches, channels, pixels = codes.shape
    values = np.empty((patches, channels, int(features[FRAMES]), pixels), dtype=np.float32)
    for start in range(0, patches, PATCHES):
        chunk = slice(start, start + PATCHES)
        for channel in range(channels):
            # Every byte is in the palette; "clip" only skips numpy's bounds check.
            values[chunk, channel] = np.take(palette[channel], codes[chunk, channel], mode="clip")[:, None]
    others = {name: features[name] for name in names_of(features) if name != PIXELS}
    return {PIXELS: torch.from_numpy(values).view(patches, -1), **others}


def names_of(features: Mapping[str, torch.Tensor]) -> set[str]:
    """Return the names of the features that `expand` returns."""
    names = set(features)
    return names - {CODES, PALETTE, FRAMES} | {PIXELS} if CODES in names else names
