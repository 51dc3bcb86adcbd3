"""The places where veRL itself is changed, one small patch a file, each pinned to the version that it was written for.

`PATCHES` lists those for veRL; `vllm_cpu_*` patch vLLM and are loaded by vLLM's own plugin group instead.
`docs/upgrading.md` says for each one why it exists, which test covers it and when it can go.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from types import ModuleType

VERL = "0.9.1"
VLLM = "0.24.0"


def require_version(distribution: str, expected: str, patch: str) -> None:
    """Raise RuntimeError unless `distribution` is installed in exactly the version that `patch` was written for."""
    found = version(distribution)
    if found != expected:
        raise RuntimeError(
            f"patch {patch!r} is written for {distribution} {expected}, but {found} is installed: "
            f"install {distribution}=={expected}, or move the pin as docs/upgrading.md describes"
        )


@dataclass(frozen=True)
class Patch:
    """A change to one module of veRL, or of a library that it calls, made right after that module is imported."""

    # Also the name of the file in this folder that holds it.
    name: str
    # The module that is changed.
    module: str

    def apply(self, module: ModuleType) -> None:
        """Apply the patch to the imported `module`; RuntimeError when veRL is not the pinned version."""
        require_version("verl", VERL, self.name)
        change: Callable[[ModuleType], None] = importlib.import_module(f"verl_ext.patches.{self.name}").apply
        change(module)


PATCHES = (
    Patch("validate_config", "verl.utils.config"),
    Patch("features_go_with_rows", "transfer_queue"),
    Patch("cpu_process_group", "verl.utils.distributed"),
    Patch("cpu_saved_model", "verl.utils.fsdp_utils"),
    Patch("images_once", "verl.models.transformers.qwen2_vl"),
    Patch("text_only_micro_batch", "verl.models.transformers.qwen2_vl"),
    Patch("equal_length_position_ids", "verl.utils.tensordict_utils"),
    Patch("socket_of_the_cluster", "verl.workers.rollout.vllm_rollout.vllm_rollout"),
    Patch("socket_of_the_cluster", "verl.workers.rollout.vllm_rollout.vllm_async_server"),
    Patch("workers_read_tensors", "verl.utils.transferqueue_utils"),
    Patch("server_follows_engine", "verl.workers.rollout.vllm_rollout.vllm_async_server"),
)
