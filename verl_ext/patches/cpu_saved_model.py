"""Patch `verl.utils.fsdp_utils.fsdp2_sharded_save_to_cpu`: on the CPU, saved parameters are copies.

veRL saves by `tensor.cpu()`, which on the CPU is the parameter itself, so that an update changes what was saved. With
several updates per step, `separate_async` would then take the latest policy for the one before the step. Can go when
veRL copies.
"""

from types import ModuleType
from typing import Any

import wrapt


def apply(module: ModuleType) -> None:
    """Wrap `fsdp2_sharded_save_to_cpu` of `module` (`verl.utils.fsdp_utils`)."""

    def save(wrapped: Any, instance: Any, args: tuple, kwargs: dict) -> tuple[dict[str, tuple[Any, Any]], Any]:
        (model,) = args
        saved, spec = wrapped(model)
        live = {name: getattr(parameter, "_local_tensor", parameter) for name, parameter in model.named_parameters()}
        return {
            name: (tensor.clone() if live[name].device.type == "cpu" else tensor, placed)
            for name, (tensor, placed) in saved.items()
        }, spec

    wrapt.wrap_function_wrapper(module, "fsdp2_sharded_save_to_cpu", save)
