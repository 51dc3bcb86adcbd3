"""The entry point that veRL imports in every process (group `verl.plugins`): arms all registrations and patches.

veRL imports this module at the end of `import verl`, so it must be light. Except for the CPU platform, which veRL looks
up immediately, each registration or patch waits until its target module is imported. A patch that does not fit the
installed version raises at that import, in the process that needs it. veRL reports a plugin that fails to load at DEBUG
level only, so `activate` logs the failure itself; the reward manager is then unknown and no run starts.
"""

import importlib
import logging
from functools import partial
from types import ModuleType

import wrapt

from verl_ext.cpu.platform import register_cpu_platform
from verl_ext.patches import PATCHES

# What is registered -> the veRL module whose import triggers it, the module of this package that registers it.
REGISTRATIONS = {
    "rewards of verl_ext.rewards": ("verl.experimental.reward_loop.reward_manager", "verl_ext.rollout.reward_manager"),
    "policy loss on_policy": ("verl.trainer.ppo.core_algos", "verl_ext.on_policy_loss"),
    "trainer mode sync_confidence": ("verl.trainer.ppo.v1.trainer_sync", "verl_ext.confidence_trainer"),
    "engines with self-certainty": ("verl.workers.engine.fsdp.transformer_impl", "verl_ext.confidence_engine"),
    "replica vllm": ("verl.workers.rollout.replica", "verl_ext.rollout.vllm_replica"),
    "engine fsdp2 on cpu": ("verl.workers.engine.fsdp.transformer_impl", "verl_ext.cpu.engine"),
}


def _import(module: str, trigger: ModuleType) -> None:
    importlib.import_module(module)


def activate() -> None:
    """Arm all registrations and patches and log one line that lists them; log and re-raise errors."""
    logger = logging.getLogger("verl_ext")
    logger.setLevel(logging.INFO)
    try:
        register_cpu_platform()
        for patch in PATCHES:
            wrapt.register_post_import_hook(patch.apply, patch.module)
        for trigger, module in REGISTRATIONS.values():
            wrapt.register_post_import_hook(partial(_import, module), trigger)
    except Exception:
        logger.exception("verl_ext is NOT active")
        raise
    logger.info(
        "verl_ext is active: platform cpu, %s; patches %s",
        ", ".join(REGISTRATIONS),
        ", ".join(dict.fromkeys(patch.name for patch in PATCHES)),
    )


activate()
