"""veRL's platform interface for machines without an accelerator, chosen by the environment variable VERL_PLATFORM=cpu.

Ray's resource is still called "GPU", because veRL's placement groups hard-code that name: a CPU run starts Ray with
`num_gpus` as tokens for ranks and rollout replicas (see recipes/mmupt/config/hardware/cpu.yaml).
"""

from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any

import torch
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry


def _nothing(*args: Any, **kwargs: Any) -> None:
    """Stands in for GPU calls that have no effect on the CPU."""


def _zero(*args: Any, **kwargs: Any) -> int:
    return 0


class _CpuDeviceModule(ModuleType):
    """`torch.cpu` plus the `torch.cuda` functions that veRL calls: memory sizes are 0, cache calls do nothing."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.cpu, name)

    def current_device(self) -> torch.device:
        return torch.device("cpu")

    def get_device_name(self, device: Any = None) -> str:
        return "CPU"

    def mem_get_info(self, device: Any = None) -> tuple[int, int]:
        return 0, 0

    def get_rng_state(self, device: Any = None) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: torch.Tensor, device: Any = None) -> None:
        torch.set_rng_state(state)

    memory_allocated = memory_reserved = max_memory_allocated = max_memory_reserved = staticmethod(_zero)
    empty_cache = ipc_collect = reset_peak_memory_stats = staticmethod(_nothing)
    manual_seed = manual_seed_all = staticmethod(torch.manual_seed)


_DEVICE_MODULE = _CpuDeviceModule("verl_ext.cpu.device")


class CpuPlatform(PlatformBase):
    """`verl.plugin.platform.platform_base` documents the methods."""

    device_name = "cpu"
    vendor_name = "cpu"
    device_module = _DEVICE_MODULE

    set_device = synchronize = set_allocator_settings = empty_cache = staticmethod(_nothing)
    profiler_start = profiler_stop = cudart = staticmethod(_nothing)
    manual_seed = manual_seed_all = staticmethod(torch.manual_seed)

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        # The head node of a GPU cluster often has no GPU, so the CPU must be chosen explicitly.
        return False

    def current_device(self) -> torch.device:
        # An index would mean cuda:0 to `tensor.to`.
        return torch.device("cpu")

    def device_count(self) -> int:
        return 1

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    def nvtx_range(self, msg: str) -> AbstractContextManager[None]:
        return nullcontext()

    def ray_resource_name(self) -> str:
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    def is_ipc_supported(self) -> bool:
        # Then weights go to the rollout engine through shared memory.
        return False


def register_cpu_platform() -> None:
    """Make the platform known to veRL under the name "cpu"."""
    PlatformRegistry.register(platform="cpu")(CpuPlatform)
