"""Patch `_get_input_embeds` of `verl.models.transformers.qwen2_vl` and `.glm4v`: the vision tower returns a tensor.

With transformers 5, a vision tower returns an object that holds its features. veRL uses this object as a tensor in two
cases: always for GLM-4.1V, and for micro-batches without images, where it runs the tower on zeros so that every rank
uses the same parameters (padding rows are text only, so this happens on any device). Remove when veRL unpacks all
outputs of the tower there (`unpack_visual_output`).
"""

from collections.abc import Callable
from typing import Any

import wrapt
from verl.utils.transformers_compat import unpack_visual_output


class _Model(wrapt.ObjectProxy):
    """Proxy of the model inside `_get_input_embeds`."""

    @property
    def visual(self) -> Any:
        return _Tower(self.__wrapped__.visual)


class _Tower(wrapt.ObjectProxy):
    """Proxy of a vision tower that returns the plain tensor of features, (visual tokens, hidden size)."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        features, _ = unpack_visual_output(self.__wrapped__(*args, **kwargs))
        return features


def patched(original: Callable[..., Any], model: Any, *args: Any, **kwargs: Any) -> Any:
    """Embed with a tower that returns a tensor."""
    return original(_Model(model), *args, **kwargs)
