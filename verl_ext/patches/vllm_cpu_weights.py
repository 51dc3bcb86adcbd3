"""Patch `vllm._custom_ops._supports_onednn`: on the CPU, layers keep the plain weights that training replaces.

With oneDNN, vLLM's `dispatch_cpu_unquantized_gemm` packs the weight of each linear layer and leaves an empty tensor
behind, so loading new weights fails. On CPUs with AMX it also packs convolution weights in place, so new weights would
be read as packed. Loaded by vLLM's own plugin group `vllm.general_plugins` in each of its processes. Remove when vLLM
can reload packed weights on the CPU.
"""

from verl_ext.patches import runs_on_vllm_cpu


def register() -> None:
    """Turn packing off if vLLM runs on the CPU; RuntimeError if vLLM is then not the pinned version."""
    if runs_on_vllm_cpu("vllm_cpu_weights"):
        import torch
        from vllm import _custom_ops

        _custom_ops._supports_onednn = False
        torch.cpu._is_amx_tile_supported = lambda: False
