"""Patch `_get_input_embeds` of `verl.models.transformers.*`: encode each distinct image of a micro-batch once.

All responses to a prompt share its images, but veRL passes the images of every response to the vision tower, in each
forward pass and in the update. The output for one image does not depend on other images, so equal images share one
output, which accumulates all their gradients. Remove when veRL shares images within a micro-batch.
"""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
import wrapt


class _Model(wrapt.ObjectProxy):
    """Proxy of the model inside `_get_input_embeds`."""

    @property
    def visual(self) -> Any:
        return _DistinctImages(self.__wrapped__.visual)


class _DistinctImages(wrapt.ObjectProxy):
    """Proxy of a vision tower; its output has the features of all images, (visual tokens, hidden size)."""

    def __call__(self, pixel_values: Any, grid_thw: Any) -> Any:
        sizes = grid_thw.prod(-1).tolist()
        images = pixel_values.split(sizes)
        firsts = _first_equals(images, grid_thw.tolist())
        distinct = sorted(set(firsts))
        if len(distinct) == len(images):
            return self.__wrapped__(pixel_values, grid_thw=grid_thw)
        output = self.__wrapped__(torch.cat([images[index] for index in distinct]), grid_thw=grid_thw[distinct])
        merged = self.__wrapped__.spatial_merge_size**2
        lengths = [sizes[index] // merged for index in distinct]

        def repeated(features: torch.Tensor) -> torch.Tensor:
            by_image = dict(zip(distinct, features.split(lengths), strict=True))
            return torch.cat([by_image[first] for first in firsts])

        if isinstance(output, torch.Tensor):
            return repeated(output)
        # The fields of an output that veRL reads; only Qwen3-VL has features of inner layers.
        fields = SimpleNamespace(pooler_output=repeated(output.pooler_output))
        if hasattr(output, "deepstack_features"):
            fields.deepstack_features = [repeated(features) for features in output.deepstack_features]
        return fields


def _first_equals(images: Sequence[Any], grids: Sequence[Sequence[int]]) -> list[int]:
    """Return for each image the index of the first image with equal grid and pixels."""
    sums = torch.stack([image.sum() for image in images]).tolist()
    candidates: dict[tuple[Any, ...], list[int]] = {}
    firsts = []
    for index, (image, grid, total) in enumerate(zip(images, grids, sums, strict=True)):
        distinct = candidates.setdefault((*grid, total), [])
        first = next((other for other in distinct if torch.equal(images[other], image)), index)
        if first == index:
            distinct.append(index)
        firsts.append(first)
    return firsts


def patched(original: Callable[..., Any], model: Any, *args: Any, **kwargs: Any) -> Any:
    """Embed with a tower that encodes distinct images only."""
    return original(_Model(model), *args, **kwargs)
