"""Patch `vllm.model_executor.models.registry._run_in_subprocess`: on the CPU, vLLM inspects models in its own process.

vLLM inspects a model class in a subprocess to avoid initializing CUDA, which is unnecessary on the CPU. The subprocess
imports torch and vLLM again, 8 s of CPU time at each start with an empty cache. Loaded by vLLM's own plugin group
`vllm.general_plugins`. Remove when vLLM does so by itself.
"""

from verl_ext.patches import runs_on_vllm_cpu


def register() -> None:
    """Patch the function if vLLM runs on the CPU; RuntimeError if vLLM is then not the pinned version."""
    if runs_on_vllm_cpu("vllm_cpu_inspection"):
        from vllm.model_executor.models import registry

        registry._run_in_subprocess = lambda inspect: inspect()
