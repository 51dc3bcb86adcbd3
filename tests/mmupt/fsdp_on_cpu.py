"""Runs the DPO process with a sharded model, as on GPUs, but on the CPU and in float32."""

from typing import Any

from accelerate.state import PartialState
from accelerate.utils import DistributedType
from trl import DPOConfig

from mmupt.baselines import dpo_process

initialize = PartialState.__init__


def initialize_as_gpu(self: PartialState, *args: Any, **kwargs: Any) -> None:
    initialize(self, *args, **kwargs)
    # accelerate shards models only on GPUs.
    if self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type = DistributedType.MULTI_GPU


def configuration(**options: Any) -> DPOConfig:
    return DPOConfig(**{**options, "use_cpu": True, "bf16": False, "dataloader_num_workers": 0})


if __name__ == "__main__":
    PartialState.__init__ = initialize_as_gpu
    dpo_process.DPOConfig = configuration
    dpo_process.main()
