"""Patch `verl.utils.fsdp_utils.fsdp2_sharded_save_to_cpu`: on the CPU, saved parameters are copies.

veRL saves by `tensor.cpu()`, which on the CPU is the parameter itself, so an update changes what was saved. With
several updates per step, `separate_async` would take the latest policy for the one before the step. Remove when veRL
copies.
"""

from collections.abc import Callable
from typing import Any


def patched(original: Callable[..., Any], model: Any) -> tuple[dict[str, tuple[Any, Any]], Any]:
    """Save, and copy the parameters that are on the CPU."""
    saved, spec = original(model)
    live = {name: getattr(parameter, "_local_tensor", parameter) for name, parameter in model.named_parameters()}
    return {
        name: (tensor.clone() if live[name].device.type == "cpu" else tensor, placement)
        for name, (tensor, placement) in saved.items()
    }, spec
