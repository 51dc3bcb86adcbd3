"""Patches of veRL and vLLM: one file per patch, each pinned to one version.

Each file says which function it patches, why, and when to remove it. `PATCHES` lists the patches of veRL and of the
libraries that veRL calls. vLLM's own plugin group loads the `vllm_cpu_*` patches. docs/upgrading.md names the test of
each patch.
"""

import functools
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from types import ModuleType
from typing import Any

VERL = "0.9.1"
VLLM = "0.24.0"


def require_version(distribution: str, expected: str, patch: str) -> None:
    """Raise RuntimeError unless the installed version of `distribution` is the one that `patch` is written for."""
    installed = version(distribution)
    if installed != expected:
        raise RuntimeError(
            f"patch {patch!r} is written for {distribution} {expected}, but {installed} is installed: "
            f"install {distribution}=={expected}, or move the pin as docs/upgrading.md describes"
        )


def runs_on_vllm_cpu(patch: str) -> bool:
    """Whether vLLM runs on the CPU; RuntimeError if so and its version is not the one that `patch` is written for."""
    from vllm.platforms import current_platform

    if is_cpu := current_platform.is_cpu():
        require_version("vllm-cpu", VLLM, patch)
    return bool(is_cpu)


@dataclass(frozen=True)
class Patch:
    """Replaces one function right after its module is imported.

    Attributes:
        name: a file in this folder. Its function `patched` replaces the original and gets it as the first argument. The
            file is imported together with the patched module, so it may import veRL and torch.
        module: the module that contains the function.
        function: the function, or CLASS.METHOD.
    """

    name: str
    module: str
    function: str

    def apply(self, module: ModuleType) -> None:
        """Apply the patch to the imported `module`; RuntimeError if veRL is not the pinned version."""
        require_version("verl", VERL, self.name)
        patched = importlib.import_module(f"{__name__}.{self.name}").patched
        *owners, name = self.function.split(".")
        owner: Any = functools.reduce(getattr, owners, module)
        setattr(owner, name, _replacement(getattr(owner, name), patched))


def _replacement(original: Callable[..., Any], patched: Callable[..., Any]) -> Callable[..., Any]:
    """Return a plain function with the original's name: Ray looks up the methods of an actor by name in its process."""
    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def call(*args: Any, **kwargs: Any) -> Any:
            return await patched(original, *args, **kwargs)

        return call
    return functools.wraps(original)(lambda *args, **kwargs: patched(original, *args, **kwargs))


_ENGINE = "verl.workers.engine.fsdp.transformer_impl"
_ROLLOUT = "verl.workers.rollout.vllm_rollout"
_MODELS = "verl.models.transformers"
_WITH_A_TOWER = ("qwen2_vl", "qwen3_vl", "qwen3_5", "glm4v")

PATCHES = (
    Patch("validate_config", "verl.utils.config", "validate_config"),
    Patch("validate_config", "verl.trainer.main_ppo", "run_ppo"),
    Patch("gradable_rows", "verl.trainer.ppo.v1.trainer_base", "PPOTrainer._init_dataloader"),
    Patch("features_go_with_rows", "transfer_queue", "kv_clear"),
    Patch("cpu_process_group", "verl.utils.distributed", "initialize_global_process_group_ray"),
    Patch("cpu_sft_process_group", "verl.utils.distributed", "initialize_global_process_group"),
    Patch("fused_output_layer", "verl.utils.fsdp_utils", "_select_fsdp2_wrap_targets"),
    Patch("rotary_in_fp32", _ENGINE, "FSDPEngine._build_module"),
    Patch("adapters_in_fp32", _ENGINE, "FSDPEngine._build_lora_module"),
    Patch("padded_micro_batches", "verl.workers.engine.utils", "rearrange_micro_batches"),
    Patch("cpu_saved_model", "verl.utils.fsdp_utils", "fsdp2_sharded_save_to_cpu"),
    *(Patch("images_once", f"{_MODELS}.{name}", "_get_input_embeds") for name in _WITH_A_TOWER),
    *(Patch("vision_output", f"{_MODELS}.{name}", "_get_input_embeds") for name in ("qwen2_vl", "glm4v")),
    Patch("equal_length_position_ids", "verl.utils.tensordict_utils", "maybe_fix_3d_position_ids"),
    Patch("select_only_rows", "verl.utils.tensordict_utils", "index_select_tensor_dict"),
    Patch("glm_position_embedding", "verl.utils.fsdp_utils", "_select_fsdp2_wrap_targets"),
    Patch("glm_flops", "verl.utils.flops_counter", "FlopsCounter.estimate_flops"),
    Patch("glm_image_tokens", f"{_ROLLOUT}.vllm_async_server", "qwen2_5_vl_dedup_image_tokens"),
    Patch("socket_of_the_cluster", f"{_ROLLOUT}.vllm_rollout", "ServerAdapter.__init__"),
    Patch("socket_of_the_cluster", f"{_ROLLOUT}.vllm_async_server", "vLLMHttpServer.__init__"),
    Patch("server_follows_engine", f"{_ROLLOUT}.vllm_async_server", "vLLMHttpServer.run_server"),
    Patch("forked_engine", "vllm.v1.engine.utils", "get_mp_context"),
    Patch("one_run_per_tracker", "verl.utils.tracking", "Tracking.__init__"),
    Patch("mlflow_params", "verl.utils.tracking", "_compute_mlflow_params_from_objects"),
    Patch("workers_read_tensors", "verl.utils.transferqueue_utils", "async_kv_batch_meta2batch_meta"),
)
