"""The process of DPO with the model sharded as on GPUs: accelerate is told that CPU processes are such."""

from typing import Any

from accelerate.state import PartialState
from accelerate.utils import DistributedType

from recipes.mmupt.baselines import dpo_process

initialize = PartialState.__init__


def initialize_as_gpu(self: PartialState, *args: Any, **kwargs: Any) -> None:
    initialize(self, *args, **kwargs)
    if self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type = DistributedType.MULTI_GPU


PartialState.__init__ = initialize_as_gpu

if __name__ == "__main__":
    dpo_process.main()
