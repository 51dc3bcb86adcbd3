"""Patch `FSDPEngine._build_lora_module`: train adapters in fp32 beside frozen weights in bf16.

veRL casts adapters to the dtype of the frozen weights, as FSDP1 requires. In bf16 the smallest change of a weight of
0.01 is 0.00006, so updates with a learning rate of 3e-6 round to zero. FSDP2 requires a single dtype only among trained
weights, and computes with all weights in bf16. Remove when veRL casts adapters under FSDP1 only.
"""

from collections.abc import Callable
from typing import Any

import torch


def patched(original: Callable[..., Any], engine: Any, module: torch.nn.Module) -> Any:
    """Build the adapters and, under FSDP2, cast them to fp32."""
    module = original(engine, module)
    if engine.engine_config.strategy == "fsdp2":
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    return module
