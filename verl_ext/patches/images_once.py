"""Patch `verl.models.transformers.qwen2_vl._get_input_embeds`: the vision tower sees each image of a micro-batch once.

The responses to a prompt have its images in common, and veRL gives the tower the images of every response, in each pass
and in the update. Its output for one image does not depend on the others, so that equal images get one output, and the
gradients of all of them meet there. Can go when veRL shares images within a micro-batch.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
import wrapt


class _EachImageOnce:
    """Stands for a vision tower; returns its plain tensor of features, (visual tokens, hidden size)."""

    def __init__(self, tower: Any, unpack: Any) -> None:
        self._tower = tower
        self._unpack = unpack

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tower, name)

    def __call__(self, pixel_values: Any, grid_thw: Any) -> Any:
        sizes = grid_thw.prod(-1).tolist()
        images = pixel_values.split(sizes)
        equals = _first_equals(images, grid_thw.tolist())
        kept = sorted(set(equals))
        if len(kept) == len(images):
            return self._tower(pixel_values, grid_thw=grid_thw)
        features, _ = self._unpack(self._tower(torch.cat([images[one] for one in kept]), grid_thw=grid_thw[kept]))
        of_kept = features.split([sizes[one] // self._tower.spatial_merge_size**2 for one in kept])
        place = {one: number for number, one in enumerate(kept)}
        return torch.cat([of_kept[place[one]] for one in equals])


def _first_equals(images: Sequence[Any], grids: Sequence[Sequence[int]]) -> list[int]:
    """For each image, the index of the first one that equals it, in grid and pixels."""
    sums = torch.stack([image.sum() for image in images]).tolist()
    firsts: dict[tuple[Any, ...], list[int]] = {}
    found = []
    for index, (image, grid, total) in enumerate(zip(images, grids, sums, strict=True)):
        candidates = firsts.setdefault((*grid, total), [])
        first = next((one for one in candidates if torch.equal(images[one], image)), index)
        if first == index:
            candidates.append(index)
        found.append(first)
    return found


class _Model:
    """Stands for the model inside `_get_input_embeds`."""

    def __init__(self, model: Any, unpack: Any) -> None:
        self._model = model
        self.visual = _EachImageOnce(model.visual, unpack)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def apply(module: ModuleType) -> None:
    """Wrap `_get_input_embeds` of `module` (`verl.models.transformers.qwen2_vl`)."""

    def get_input_embeds(wrapped: Any, instance: Any, args: tuple, kwargs: dict) -> Any:
        model, *rest = args
        return wrapped(_Model(model, module.unpack_visual_output), *rest, **kwargs)

    wrapt.wrap_function_wrapper(module, "_get_input_embeds", get_input_embeds)
