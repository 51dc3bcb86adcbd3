"""Pixel values as the 8-bit pixels that they were computed from: an eighth of the bytes, and the same values when read.

The image processors of Qwen's vision-language models compute (pixel / 255 - mean) / std in fp32 for each channel and
repeat an image as `temporal_patch_size` equal frames
(transformers/models/qwen2_vl/image_processing_qwen2_vl.py). So a channel has at most 256 different values. A palette of
these and one byte per pixel of one frame say the same as the pixel values. Whatever does not come out equal, to the
bit, stays as it is.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

PIXELS, CODES, PALETTE, FRAMES = "pixel_values", "pixel_codes", "pixel_palette", "pixel_frames"
CODES_PER_CHANNEL = 256


class PixelCoder:
    """Encodes the pixel values of one image processor.

    Args:
        mean, std: per channel, of pixels from 0 to 1.
        frames: equal frames of an image.
    """

    def __init__(self, mean: list[float], std: list[float], frames: int) -> None:
        self._scale = 255 * torch.tensor(std).view(1, -1, 1)
        # The half makes the conversion to whole numbers, which cuts off, a rounding.
        self._offset = 255 * torch.tensor(mean).view(1, -1, 1) + 0.5
        self._frames = frames
        # Filled from the images as they come; nothing equals the NaN of a pixel that has not been seen.
        self._palette = np.full((len(mean), CODES_PER_CHANNEL), np.nan, dtype=np.float32)

    @classmethod
    def of(cls, processor: Any) -> "PixelCoder | None":
        """The coder of a processor whose images are laid out as Qwen's are; None for any other."""
        images = getattr(processor, "image_processor", None)
        names = ("image_mean", "image_std", "temporal_patch_size")
        mean, std, frames = (getattr(images, name, None) for name in names)
        return None if mean is None or std is None or frames is None else cls(list(mean), list(std), frames)

    def compact(self, features: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return features with codes in place of `pixel_values`, (patches, channels x frames x pixels) in fp32.

        They are returned as they are where `expand` would not give exactly the same back.
        """
        values = features.get(PIXELS)
        channels = len(self._palette)
        if values is None or values.dtype != torch.float32 or values.dim() != 2:
            return dict(features)
        if not len(values) or values.shape[1] % (channels * self._frames):
            return dict(features)
        frame = values.view(len(values), channels, self._frames, -1)[:, :, 0]
        codes = torch.addcmul(self._offset, frame, self._scale).to(torch.uint8)
        palette = self._palette
        if not torch.equal(_values(codes, torch.from_numpy(palette), self._frames), values):
            palette = palette.copy()
            for channel in range(channels):
                palette[channel][codes[:, channel].numpy()] = frame[:, channel].numpy()
            if not torch.equal(_values(codes, torch.from_numpy(palette), self._frames), values):
                return dict(features)
            self._palette = palette
        others = {name: value for name, value in features.items() if name != PIXELS}
        frames = torch.tensor([self._frames])
        return {**others, CODES: codes, PALETTE: torch.from_numpy(palette), FRAMES: frames}


def expand(features: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return features as they were before `PixelCoder.compact`."""
    if CODES not in features:
        return dict(features)
    others = {name: features[name] for name in names_of(features) if name != PIXELS}
    return {PIXELS: _values(features[CODES], features[PALETTE], int(features[FRAMES])), **others}


def names_of(features: Mapping[str, torch.Tensor]) -> set[str]:
    """The names that `expand` returns."""
    names = set(features)
    return names - {CODES, PALETTE, FRAMES} | {PIXELS} if CODES in names else names


def _values(codes: torch.Tensor, palette: torch.Tensor, frames: int) -> torch.Tensor:
    patches, channels, pixels = codes.shape
    values = np.empty((patches, channels, frames, pixels), dtype=np.float32)
    for channel in range(channels):
        # numpy looks up by bytes; torch would make 64-bit indices of them first.
        values[:, channel] = palette[channel].numpy()[codes[:, channel].numpy()][:, None]
    return torch.from_numpy(values).view(patches, -1)
