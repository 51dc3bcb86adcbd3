"""Patch `ServerAdapter.__init__` and `vLLMHttpServer.__init__`: weights go through a socket that no other run has.

veRL names the socket in /tmp after Ray's job id, so that runs on one machine do not meet. But the job ids of every Ray
cluster start at 01000000, and a run with a cluster of its own is always that job: one of two such runs whose weight
transfers meet takes the other's socket, and both wait for ever. Can go when veRL's name for it holds the cluster, too.
"""

import functools
import hashlib
import os
from collections.abc import Callable
from types import ModuleType
from typing import Any

import ray


def name_of_the_job() -> str:
    """Return Ray's job id with a digest of its cluster's session, short enough for the path of a socket."""
    context = ray.get_runtime_context()
    return f"{context.get_job_id()}-{hashlib.sha256(context.get_session_name().encode()).hexdigest()[:12]}"


def apply(module: ModuleType) -> None:
    """Wrap the `__init__` of the sender in `vllm_rollout` or of the server, whose engine receives, in its module."""
    if hasattr(module, "vLLMHttpServer"):
        _call_after(module.vLLMHttpServer, lambda _: os.environ.update(VERL_RAY_JOB_ID=name_of_the_job()))
    else:
        _call_after(module.ServerAdapter, _rename)


def _rename(sender: Any) -> None:
    sender.zmq_handle = sender.zmq_handle.replace(ray.get_runtime_context().get_job_id(), name_of_the_job())


def _call_after(cls: Any, action: Callable[[Any], None]) -> None:
    original = cls.__init__

    # Of veRL's name, as Ray sends the methods of an actor to its process by name.
    @functools.wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        action(self)

    cls.__init__ = init
