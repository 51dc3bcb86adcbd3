"""Patch `vllm._custom_ops._supports_onednn`: on the CPU, layers keep the weight that training replaces.

With oneDNN, vLLM's `dispatch_cpu_unquantized_gemm` packs each weight of a linear layer and leaves an empty one behind,
so loading new weights fails. Where the CPU has AMX, it also packs the weights of convolutions in their place, so that
new ones would be read as packed ones. Loaded by vLLM's own plugin group `vllm.general_plugins` in each of its
processes. Remove when vLLM can reload packed weights on the CPU.
"""

from verl_ext.patches import runs_on_vllm_cpu


def register() -> None:
    """Turn packing off where vLLM runs on the CPU; RuntimeError when vLLM is not the pinned version."""
    if runs_on_vllm_cpu("vllm_cpu_weights"):
        import torch
        from vllm import _custom_ops

        _custom_ops._supports_onednn = False
        torch.cpu._is_amx_tile_supported = lambda: False
