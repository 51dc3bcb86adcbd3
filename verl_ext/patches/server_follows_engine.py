"""Patch `vLLMHttpServer.run_server`: end the server when vLLM's engine, a separate process, dies.

Otherwise nothing notices the death until the next request, and a weight transfer waits for the engine forever. The
watchdog sees immediately that the server, a named actor, is gone. Remove when the server ends by itself, as vLLM's own
server does.
"""

import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

logger = logging.getLogger(__name__)
logger.setLevel(logging.INFO)

SECONDS_BETWEEN_CHECKS = 1.0


async def patched(original: Callable[..., Awaitable[None]], self: Any, *args: Any, **kwargs: Any) -> None:
    """Start the server and a thread that watches its engine."""
    await original(self, *args, **kwargs)
    threading.Thread(target=_follow, args=(self.engine,), name="follow engine", daemon=True).start()


def _follow(engine: Any) -> None:
    while not engine.errored:
        time.sleep(SECONDS_BETWEEN_CHECKS)
    logger.error("vLLM's engine (VLLM::EngineCore) has died, and its server ends with it")
    os._exit(1)
