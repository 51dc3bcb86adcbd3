"""Patch `verl.models.transformers.qwen2_vl._get_input_embeds`: a micro-batch without any image trains too.

For such a micro-batch veRL runs the vision tower on zeros, so that every rank uses the same parameters, and takes the
mean of its output; with transformers 5 and newer that output is an object, not a tensor, and has no mean. Padding rows
are text only, so this happens on any device. Can go when veRL unpacks the output there as it does for real images.
"""

from types import ModuleType
from typing import Any

import wrapt


class _UnpackedVision:
    """Stands for the model inside `_get_input_embeds`, its vision tower returning the plain tensor of features."""

    def __init__(self, model: Any, unpack: Any) -> None:
        self._model = model
        self._unpack = unpack

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def visual(self, pixel_values: Any, grid_thw: Any) -> Any:
        features, _ = self._unpack(self._model.visual(pixel_values, grid_thw=grid_thw))
        return features


def apply(module: ModuleType) -> None:
    """Wrap `_get_input_embeds` of `module` (`verl.models.transformers.qwen2_vl`)."""

    def get_input_embeds(wrapped: Any, instance: Any, args: tuple, kwargs: dict) -> Any:
        model, *rest = args
        has_vision = any(
            value is not None for value in (*rest[2:4], kwargs.get("pixel_values"), kwargs.get("pixel_values_videos"))
        )
        if not has_vision:
            model = _UnpackedVision(model, module.unpack_visual_output)
        return wrapped(model, *rest, **kwargs)

    wrapt.wrap_function_wrapper(module, "_get_input_embeds", get_input_embeds)
