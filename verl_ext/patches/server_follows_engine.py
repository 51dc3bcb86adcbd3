"""Patch `vLLMHttpServer.run_server`: the server ends when vLLM's engine, a process of its own, has died.

Otherwise the death shows only when the engine is used again, and never to a weight transfer that waits for it; the
server is a named actor, which the watchdog misses at once. Can go when the server ends by itself, as vLLM's own does.
"""

import functools
import logging
import os
import threading
import time
from types import ModuleType
from typing import Any

logger = logging.getLogger(__name__)
logger.setLevel(logging.INFO)

SECONDS_BETWEEN_CHECKS = 1.0


def apply(module: ModuleType) -> None:
    """Replace `vLLMHttpServer.run_server` of `module` (`verl.workers.rollout.vllm_rollout.vllm_async_server`)."""
    original = module.vLLMHttpServer.run_server

    # A function by veRL's name, as Ray sends the methods of an actor to its process: this one by name, but of a wrapt
    # proxy the function inside.
    @functools.wraps(original)
    async def run_server(self: Any, *args: Any, **kwargs: Any) -> None:
        await original(self, *args, **kwargs)
        threading.Thread(target=_follow, args=(self.engine,), name="follow engine", daemon=True).start()

    module.vLLMHttpServer.run_server = run_server


def _follow(engine: Any) -> None:
    while not engine.errored:
        time.sleep(SECONDS_BETWEEN_CHECKS)
    logger.error("vLLM's engine (VLLM::EngineCore) has died, and its server ends with it")
    os._exit(1)
