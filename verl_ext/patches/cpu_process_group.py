"""Patch `verl.utils.distributed.initialize_global_process_group_ray`: ask for "cpu:gloo" on the CPU platform.

veRL asks for "cpu:gloo,DEVICE:BACKEND"; on CPU that is "cpu:gloo,cpu:gloo", which torch refuses. Can go when veRL
drops the repeated device.
"""

from types import ModuleType
from typing import Any

import wrapt


def apply(module: ModuleType) -> None:
    """Wrap `initialize_global_process_group_ray` of `module` (`verl.utils.distributed`)."""

    def initialize(wrapped: Any, instance: Any, args: tuple, kwargs: dict) -> None:
        if module.get_device_name() == "cpu":
            kwargs["backend"] = "cpu:gloo"
        wrapped(*args, **kwargs)

    wrapt.wrap_function_wrapper(module, "initialize_global_process_group_ray", initialize)
