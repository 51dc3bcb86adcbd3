"""Stores pixel values as the 8-bit pixels that they were computed from: an eighth of the bytes, restored exactly.

The image processors of Qwen's vision-language models compute (pixel / 255 - mean) / std in fp32 for each channel and
repeat an image as `temporal_patch_size` equal frames
(transformers/models/qwen2_vl/image_processing_qwen2_vl.py). So a channel has at most 256 different values, and a
palette of these with one byte per pixel of one frame encodes them. Pixel values that are not restored bit by bit are
stored unchanged.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

PIXELS, CODES, PALETTE, FRAMES = "pixel_values", "pixel_codes", "pixel_palette", "pixel_frames"
CODES_PER_CHANNEL = 256
# Processed at a time, so that intermediate results stay in the cache of a core.
PATCHES = 128


class PixelCoder:
    """Encodes the pixel values of one image processor.

    Args:
        mean, std: per channel, of pixels from 0 to 1.
        frames: equal frames of an image.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], frames: int) -> None:
        self._scale = 255 * np.array(std, dtype=np.float32).reshape(1, -1, 1)
        # The half turns the truncation to whole numbers into rounding.
        self._offset = 255 * np.array(mean, dtype=np.float32).reshape(1, -1, 1) + np.float32(0.5)
        self._frames = frames
        # Filled from the images as they come; nothing equals the NaN of a pixel that has not been seen.
        self._palette: np.ndarray = np.full((len(mean), CODES_PER_CHANNEL), np.nan, dtype=np.float32)

    @classmethod
    def of(cls, processor: Any) -> "PixelCoder | None":
        """The coder of a processor whose images are laid out as Qwen's are; None for any other."""
        images = getattr(processor, "image_processor", None)
        names = ("image_mean", "image_std", "temporal_patch_size")
        mean, std, frames = (getattr(images, name, None) for name in names)
        return None if mean is None or std is None or frames is None else cls(mean, std, frames)

    def compact(self, features: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return features with codes in place of `pixel_values`, (patches, channels x frames x pixels) in fp32.

        They are returned unchanged if `expand` would not restore them exactly.
        """
        values, channels = features.get(PIXELS), len(self._palette)
        if values is None or values.dtype != torch.float32 or values.dim() != 2:
            return dict(features)
        if not len(values) or values.shape[1] % (channels * self._frames):
            return dict(features)
        pixels = values.numpy().reshape(len(values), channels, self._frames, -1)
        codes = np.empty((len(pixels), channels, pixels.shape[3]), dtype=np.uint8)
        palette = self._palette
        for some, its_codes in _in_parts(pixels, codes):
            with np.errstate(invalid="ignore"):
                its_codes[:] = some[:, :, 0] * self._scale + self._offset
            if not _say_the_same(its_codes, palette, some):
                palette = palette.copy()
                for channel, of_channel in enumerate(palette):
                    of_channel[its_codes[:, channel]] = some[:, channel, 0]
                if not _say_the_same(its_codes, palette, some):
                    return dict(features)
        if palette is not self._palette:
            # A palette entry learnt from one part may contradict another part.
            if not all(_say_the_same(its_codes, palette, some) for some, its_codes in _in_parts(pixels, codes)):
                return dict(features)
            self._palette = palette
        others = {name: value for name, value in features.items() if name != PIXELS}
        return {
            **others,
            CODES: torch.from_numpy(codes),
            PALETTE: torch.from_numpy(palette),
            FRAMES: torch.tensor([self._frames]),
        }


def expand(features: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return features as they were before `PixelCoder.compact`."""
    if CODES not in features:
        return dict(features)
    codes, palette = features[CODES].numpy(), features[PALETTE].numpy()
    patches, channels, pixels = codes.shape
    values = np.empty((patches, channels, int(features[FRAMES]), pixels), dtype=np.float32)
    for some, its_codes in _in_parts(values, codes):
        for channel in range(channels):
            some[:, channel] = _looked_up(its_codes, palette, channel)[:, None]
    others = {name: features[name] for name in names_of(features) if name != PIXELS}
    return {PIXELS: torch.from_numpy(values).view(patches, -1), **others}


def _in_parts(pixels: np.ndarray, codes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, len(pixels), PATCHES):
        yield pixels[start : start + PATCHES], codes[start : start + PATCHES]


def _say_the_same(codes: np.ndarray, palette: np.ndarray, pixels: np.ndarray) -> bool:
    for channel in range(len(palette)):
        values = _looked_up(codes, palette, channel)
        if any(not np.array_equal(values, frame) for frame in pixels[:, channel].swapaxes(0, 1)):
            return False
    return True


def _looked_up(codes: np.ndarray, palette: np.ndarray, channel: int) -> np.ndarray:
    # No byte is beyond the palette: "clip" only spares numpy a check.
    return np.take(palette[channel], codes[:, channel], mode="clip")


def names_of(features: Mapping[str, torch.Tensor]) -> set[str]:
    """The names that `expand` returns."""
    names = set(features)
    return names - {CODES, PALETTE, FRAMES} | {PIXELS} if CODES in names else names
