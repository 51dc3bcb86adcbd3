"""Patch `CPUFusedMOE.check_grouped_gemm` of `vllm.model_executor.layers.fused_moe.cpu_fused_moe`: experts stay plain.

On the CPU, vLLM packs the weights of experts for its own kernel, in place of the weights that training later replaces:
new weights would be read as packed ones. Without that kernel it multiplies by the weights as they are, but its SwiGLU
asks for a configuration that is not set in a forward pass, so it gets the plain function. Loaded by vLLM's own plugin
group `vllm.general_plugins`. Remove when vLLM can reload packed weights on the CPU.
"""

from typing import Any

import wrapt

from verl_ext.patches import runs_on_vllm_cpu


def register() -> None:
    """Change the method where vLLM runs on the CPU; RuntimeError when vLLM is not the pinned version."""
    if runs_on_vllm_cpu("vllm_cpu_experts"):
        wrapt.register_post_import_hook(_apply, "vllm.model_executor.layers.fused_moe.cpu_fused_moe")


def _apply(module: Any) -> None:
    module.CPUFusedMOE.check_grouped_gemm = lambda self, layer: (False, "none")
    module._CPU_MOE_ACT_FN[module.MoEActivation.SILU] = module.SiluAndMul.forward_native
