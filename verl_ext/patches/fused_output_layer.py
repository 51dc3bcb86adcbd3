"""Patch `verl.utils.fsdp_utils._select_fsdp2_wrap_targets`: make fused kernels work with an untied output layer.

Under `model.use_fused_kernels=True` the forward function reads `lm_head.weight` instead of calling the layer. FSDP2
gathers the weights of a module when the module is called, and veRL shards the layer as a separate module unless it is
tied to the embedding table, so the function reads a shard. Qwen2.5-VL-7B fails at its first log-probabilities;
Qwen3-VL-8B, whose weight veRL gathers in fp32, fails at its first backward pass. If the layer is left to the root
module, FSDP2 gathers its weight with the rest of the root, in the dtype of the computation. Remove when veRL does so
(https://github.com/verl-project/verl/pull/7427).
"""

from collections.abc import Callable
from typing import Any


def patched(original: Callable[..., Any], model: Any, classes: Any) -> Any:
    """Leave the output layer to the root if fused kernels read its weight; veRL's monkey_patch.py marks such models."""
    modules = original(model, classes)
    if getattr(model, "_verl_fused_kernels_backend", None) is None:
        return modules
    output_layer = model.get_output_embeddings()
    return [module for module in modules if module is not output_layer]
