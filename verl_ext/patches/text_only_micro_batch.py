"""Patch `verl.models.transformers.qwen2_vl._get_input_embeds`: a micro-batch without any image trains too.

For such a micro-batch veRL runs the vision tower on zeros, so that every rank uses the same parameters, and takes the
mean of its output; with transformers 5 and newer that output is an object without a mean. Padding rows are text only,
so this happens on any device. Remove when veRL unpacks the output there as it does for real images.
"""

from collections.abc import Callable
from typing import Any

import wrapt
from verl.models.transformers.qwen2_vl import unpack_visual_output


class _UnpackedVision(wrapt.ObjectProxy):
    """Stands for the model inside `_get_input_embeds`; its vision tower returns the plain tensor of features."""

    def visual(self, pixel_values: Any, grid_thw: Any) -> Any:
        features, _ = unpack_visual_output(self.__wrapped__.visual(pixel_values, grid_thw=grid_thw))
        return features


def patched(
    original: Callable[..., Any],
    model: Any,
    input_ids: Any,
    attention_mask: Any = None,
    pixel_values: Any = None,
    pixel_values_videos: Any = None,
    *grids: Any,
    **named_grids: Any,
) -> Any:
    """Unpack the output of the vision tower where there are neither images nor videos."""
    if pixel_values is None and pixel_values_videos is None:
        model = _UnpackedVision(model)
    return original(model, input_ids, attention_mask, pixel_values, pixel_values_videos, *grids, **named_grids)
