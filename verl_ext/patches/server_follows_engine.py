"""Patch `vLLMHttpServer.run_server`: the server ends when vLLM's engine, a process of its own, has died.

Otherwise the death shows only when the engine is used again, and never to a weight transfer that waits for it; the
server is a named actor, which the watchdog misses at once. Can go when the server ends by itself, as vLLM's own does.
"""

import logging
import os
import threading
import time
from types import ModuleType
from typing import Any

import wrapt

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_CHECKS = 1.0


def apply(module: ModuleType) -> None:
    """Wrap `vLLMHttpServer.run_server` of `module` (`verl.workers.rollout.vllm_rollout.vllm_async_server`)."""

    async def run_server(wrapped: Any, instance: Any, args: tuple, kwargs: dict) -> None:
        await wrapped(*args, **kwargs)
        threading.Thread(target=_follow, args=(instance.engine,), name="follow engine", daemon=True).start()

    wrapt.wrap_function_wrapper(module, "vLLMHttpServer.run_server", run_server)


def _follow(engine: Any) -> None:
    while not engine.errored:
        time.sleep(SECONDS_BETWEEN_CHECKS)
    logger.error("vLLM's engine (VLLM::EngineCore) has died, so its server ends")
    os._exit(1)
