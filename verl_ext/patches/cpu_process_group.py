"""Patch `verl.utils.distributed`: process groups on the CPU platform are asked for as "cpu:gloo".

veRL asks for "cpu:gloo,DEVICE:BACKEND"; on CPU that is "cpu:gloo,cpu:gloo", which torch refuses. Its GRPO workers do so
in `initialize_global_process_group_ray`, its SFT trainer in `initialize_global_process_group`. Can go when veRL drops
the repeated device.
"""

import os
from types import ModuleType
from typing import Any

import wrapt


def apply(module: ModuleType) -> None:
    """Wrap both functions of `module` (`verl.utils.distributed`)."""

    def initialize_in_ray(wrapped: Any, instance: Any, args: tuple, kwargs: dict) -> None:
        if module.get_device_name() == "cpu":
            kwargs["backend"] = "cpu:gloo"
        wrapped(*args, **kwargs)

    wrapt.wrap_function_wrapper(module, "initialize_global_process_group_ray", initialize_in_ray)

    def initialize(wrapped: Any, instance: Any, args: tuple, kwargs: dict) -> tuple[int, ...]:
        if module.get_device_name() != "cpu":
            return wrapped(*args, **kwargs)
        module.initialize_global_process_group_ray(*args, **kwargs)
        return tuple(int(os.environ[name]) for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE"))

    wrapt.wrap_function_wrapper(module, "initialize_global_process_group", initialize)
