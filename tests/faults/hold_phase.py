"""Pauses a run inside a phase of a step, so that a test can kill it there however short the phase is.

veRL imports this module in every process of a run (VERL_USE_EXTERNAL_MODULES). The file `hold` in the run folder names
the phase. The first process to reach it renames the file to `held` and sleeps, in the middle of its work.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import wrapt

SECONDS = 120


def hold(phase: str) -> None:
    """Sleep if this is the phase to pause in."""
    folder = Path(os.environ["MMUPT_RUN_FOLDER"])
    try:
        if (folder / "hold").read_text() == phase:
            os.rename(folder / "hold", folder / "held")
            time.sleep(SECONDS)
    except FileNotFoundError:
        pass


def _generation(step: Callable[..., Any], engine: Any, args: Any, kwargs: Any) -> Any:
    # Requests have arrived, and their responses are not complete.
    if engine.scheduler.has_requests():
        hold("generation")
    return step(*args, **kwargs)


def _update(optimizer_step: Callable[..., Any], engine: Any, args: Any, kwargs: Any) -> Any:
    # Gradients are computed, parameters are not yet updated.
    hold("update")
    return optimizer_step(*args, **kwargs)


def _checkpoint(save: Callable[..., Any], torch: Any, args: Any, kwargs: Any) -> Any:
    # Parameters are saved, the optimizer is not.
    if "optim_" in str(args[1]):
        hold("checkpoint")
    return save(*args, **kwargs)


def _weight_transfer(init_buffer: Callable[..., Any], sender: Any, args: Any, kwargs: Any) -> Any:
    # Both sides have mapped the shared memory, which has no parameter yet.
    init_buffer(*args, **kwargs)
    hold("weight transfer")


for trigger, module, name, wrapper in (
    ("vllm.v1.engine.core", "vllm.v1.engine.core", "EngineCoreProc._process_engine_step", _generation),
    (*["verl.workers.engine.fsdp.transformer_impl"] * 2, "FSDPEngine.optimizer_step", _update),
    ("verl.utils.checkpoint.fsdp_checkpoint_manager", "torch", "save", _checkpoint),
    (
        *["verl.workers.rollout.vllm_rollout.bucketed_weight_transfer"] * 2,
        "BucketedWeightSender._init_buffer",
        _weight_transfer,
    ),
):
    wrapt.register_post_import_hook(
        lambda _, module=module, name=name, wrapper=wrapper: wrapt.wrap_function_wrapper(module, name, wrapper), trigger
    )
