"""Patch `FSDPEngine._build_lora_module`: adapters are trained in fp32 beside frozen weights in bf16.

veRL casts adapters to the dtype of the frozen weights, which FSDP1 needs. In bf16 a weight of 0.01 changes by steps of
0.00006 at least, so that updates with a learning rate of 3e-6 round to nothing. FSDP2 wants one dtype among trained
weights only, and computes with both in bf16. Remove when veRL casts under FSDP1 alone.
"""

from collections.abc import Callable
from typing import Any

import torch


def patched(original: Callable[..., Any], engine: Any, module: torch.nn.Module) -> Any:
    """Build the adapters, and cast them to fp32 under FSDP2."""
    module = original(engine, module)
    if engine.engine_config.strategy == "fsdp2":
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    return module
