"""Patch `verl.utils.distributed.initialize_global_process_group`: veRL's SFT trainer gets a process group on the CPU.

veRL requests the backend described in `cpu_process_group` and has no parameter to change it. Remove with that patch.
"""

import os
from collections.abc import Callable
from typing import Any

from verl.utils import distributed


def patched(original: Callable[..., tuple[int, ...]], *args: Any, **kwargs: Any) -> tuple[int, ...]:
    """Initialize as the GRPO workers do on the CPU; return local rank, rank and world size."""
    if distributed.get_device_name() != "cpu":
        return original(*args, **kwargs)
    distributed.initialize_global_process_group_ray(*args, **kwargs)
    return tuple(int(os.environ[name]) for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE"))
