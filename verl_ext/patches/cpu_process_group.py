"""Patch `verl.utils.distributed.initialize_global_process_group_ray`: CPU process groups use the backend "cpu:gloo".

veRL asks for "cpu:gloo,DEVICE:BACKEND"; on the CPU that is "cpu:gloo,cpu:gloo", which torch refuses. Remove when veRL
drops the repeated device.
"""

from collections.abc import Callable
from typing import Any

from verl.utils.device import get_device_name


def patched(original: Callable[..., None], *args: Any, **kwargs: Any) -> None:
    """Initialize with the backend "cpu:gloo" on the CPU."""
    original(*args, **(kwargs | {"backend": "cpu:gloo"} if get_device_name() == "cpu" else kwargs))
