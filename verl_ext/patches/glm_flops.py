"""Patch `verl.utils.flops_counter.FlopsCounter.estimate_flops`: compute the utilization of GLM-4.1V.

With transformers 5, only `text_config` holds the sizes of its language model. veRL reads them from the outer config, so
every update ends in an AttributeError. The vision tower is not counted, as veRL does for Qwen2.5-VL. Remove when veRL
reads `text_config` here.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import wrapt


class _LanguageModel(wrapt.ObjectProxy):
    """The config of the language model under the model type by which veRL selects its formula."""

    model_type = "glm4v"


def patched(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    """Estimate from the config of the language model."""
    if self.config.model_type != _LanguageModel.model_type:
        return original(self, *args, **kwargs)
    return original(SimpleNamespace(config=_LanguageModel(self.config.text_config)), *args, **kwargs)
