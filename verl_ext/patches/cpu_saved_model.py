"""Patch `verl.utils.fsdp_utils.fsdp2_sharded_save_to_cpu`: on the CPU, saved parameters are copies.

veRL saves with `tensor.cpu()`, which on the CPU returns the parameter itself, so an update changes the saved weights.
With several updates per step, `separate_async` would use the latest policy as the policy before the step. Remove when
veRL copies.
"""

from collections.abc import Callable
from typing import Any


def patched(original: Callable[..., Any], model: Any) -> tuple[dict[str, tuple[Any, Any]], Any]:
    """Save as veRL does, and clone the parameters that are on the CPU."""
    saved, spec = original(model)
    live = {name: getattr(parameter, "_local_tensor", parameter) for name, parameter in model.named_parameters()}
    return {
        name: (tensor.clone() if live[name].device.type == "cpu" else tensor, placement)
        for name, (tensor, placement) in saved.items()
    }, spec
