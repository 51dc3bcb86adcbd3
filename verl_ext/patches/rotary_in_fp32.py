"""Patch `FSDPEngine._build_module`: keep the frequencies of rotary embeddings in fp32 when weights are in bf16.

Under `fsdp_config.model_dtype=bf16` veRL casts the whole model, including buffers. Rounding a frequency of 0.8 to bf16
changes it by up to 0.2 %, so after 1,000 tokens an angle is off by up to 1.6, and the actor's probabilities differ from
those of vLLM, which keeps fp32. Remove when veRL casts only parameters.
"""

from collections.abc import Callable
from typing import Any

import torch


def patched(original: Callable[..., Any], engine: Any) -> Any:
    """Build the model and recompute the non-persistent buffers that were cast, in fp32."""
    model = original(engine)
    for owner in model.modules():
        cast = [name for name in owner._non_persistent_buffers_set if _was_cast(getattr(owner, name))]
        for name in cast:
            setattr(owner, name, getattr(owner, name).float())
        if cast:
            model._init_weights(owner)
    return model


def _was_cast(buffer: torch.Tensor | None) -> bool:
    return buffer is not None and buffer.is_floating_point() and buffer.dtype != torch.float32
