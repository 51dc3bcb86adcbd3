"""veRL's FSDP engine for the CPU, registered for the device "cpu" and the strategy fsdp2.

FSDP1 is left out because its `sync_module_states` needs a GPU.
"""

from dataclasses import replace
from typing import Any

import torch
from verl.workers.config import FSDPEngineConfig
from verl.workers.engine.base import EngineRegistry

from verl_ext.confidence_engine import ConfidenceFSDPEngineWithLMHead


@EngineRegistry.register(model_type="language_model", backend="fsdp2", device="cpu")
class CpuFSDPEngineWithLMHead(ConfidenceFSDPEngineWithLMHead):
    """veRL's engine without offloading forward-only models, which pins memory and so needs a GPU."""

    engine_config: FSDPEngineConfig

    def _build_fsdp_module(self, module: torch.nn.Module) -> Any:
        configured = self.engine_config
        self.engine_config = replace(configured, forward_only=False)
        try:
            return super()._build_fsdp_module(module)
        finally:
            self.engine_config = configured
