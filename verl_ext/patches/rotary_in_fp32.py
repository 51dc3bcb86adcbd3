"""Patch `FSDPEngine._build_module`: weights in bf16 leave the frequencies of rotary positions in fp32.

Under `fsdp_config.model_dtype=bf16` veRL casts all of the model, its buffers among them. A frequency of 0.8 rounded to
bf16 is off by up to 0.2 %, so that after 1,000 tokens an angle is off by up to 1.6, and the actor has other
probabilities than vLLM, which keeps fp32. Remove when veRL casts parameters alone.
"""

from collections.abc import Callable
from typing import Any

import torch


def patched(original: Callable[..., Any], engine: Any) -> Any:
    """Build the model, and recompute in fp32 the buffers that are not stored and were cast."""
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
