"""Patch `verl.utils.fsdp_utils._select_fsdp2_wrap_targets`: fused kernels work with an untied output layer.

Under `model.use_fused_kernels=True` the forward function reads `lm_head.weight` instead of calling the layer. FSDP2
gathers a module's weights when the module is called, so where the layer is sharded by itself, as veRL does unless it is
the embedding table, the weight is still a shard: Qwen2.5-VL-7B fails in its first log-probabilities, and
Qwen3-VL-8B, for which veRL gathers the weight in fp32, in its first backward pass. Left to the root module, the weight
is gathered with the rest of the root, in the dtype of the computation. Remove when veRL does so
(https://github.com/verl-project/verl/pull/7427).
"""

from collections.abc import Callable
from typing import Any


def patched(original: Callable[..., Any], model: Any, classes: Any) -> Any:
    """Leave the output layer to the root where fused kernels read its weight (veRL's monkey_patch.py marks such)."""
    modules = original(model, classes)
    if getattr(model, "_verl_fused_kernels_backend", None) is None:
        return modules
    output_layer = model.get_output_embeddings()
    return [module for module in modules if module is not output_layer]
