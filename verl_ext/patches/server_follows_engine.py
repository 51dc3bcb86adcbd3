"""Patch `vLLMHttpServer.run_server`: the server ends when vLLM's engine, a separate process, has died.

Otherwise the death shows only when the engine is used again, and never to a weight transfer that waits for it. The
watchdog notices at once that the server, a named actor, is gone. Remove when the server ends by itself, as vLLM's own
does.
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
    """Start the server, and a thread that follows its engine."""
    await original(self, *args, **kwargs)
    threading.Thread(target=_follow, args=(self.engine,), name="follow engine", daemon=True).start()


def _follow(engine: Any) -> None:
    while not engine.errored:
        time.sleep(SECONDS_BETWEEN_CHECKS)
    logger.error("vLLM's engine (VLLM::EngineCore) has died, and its server ends with it")
    os._exit(1)
