"""Patch `verl.utils.flops_counter.FlopsCounter.estimate_flops`: the utilization of GLM-4.1V is computed, not an error.

With transformers 5, the sizes of its language model are in `text_config` alone; veRL reads them from the config around
it, and every update ends in an AttributeError. As for Qwen2.5-VL, veRL leaves out the vision tower. Remove when veRL
reads `text_config` here.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import wrapt


class _LanguageModel(wrapt.ObjectProxy):
    """Stands for the config of the language model, under the type by which veRL chooses its formula."""

    model_type = "glm4v"


def patched(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    """Estimate by the config of the language model."""
    if self.config.model_type != _LanguageModel.model_type:
        return original(self, *args, **kwargs)
    return original(SimpleNamespace(config=_LanguageModel(self.config.text_config)), *args, **kwargs)
