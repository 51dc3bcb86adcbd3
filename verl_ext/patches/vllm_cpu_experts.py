"""Patch `CPUFusedMOE.check_grouped_gemm` of `vllm.model_executor.layers.fused_moe.cpu_fused_moe`: do not pack experts.

On the CPU, vLLM packs expert weights in place for its own kernel, so weights that training loads later would be read as
packed. Without that kernel vLLM multiplies by the plain weights, but its SwiGLU reads a config that is not set in a
forward pass, so the patch substitutes the native function. Loaded by vLLM's own plugin group `vllm.general_plugins`.
Remove when vLLM can reload packed weights on the CPU.
"""

from typing import Any

import wrapt

from verl_ext.patches import runs_on_vllm_cpu


def register() -> None:
    """Patch the method if vLLM runs on the CPU; RuntimeError if vLLM is then not the pinned version."""
    if runs_on_vllm_cpu("vllm_cpu_experts"):
        wrapt.register_post_import_hook(_apply, "vllm.model_executor.layers.fused_moe.cpu_fused_moe")


def _apply(module: Any) -> None:
    module.CPUFusedMOE.check_grouped_gemm = lambda self, layer: (False, "none")
    module._CPU_MOE_ACT_FN[module.MoEActivation.SILU] = module.SiluAndMul.forward_native
