"""Patch `ServerAdapter.__init__` and `vLLMHttpServer.__init__`: each run sends weights through its own sockets.

veRL names the socket in /tmp after Ray's job id. The job ids of every Ray cluster start at 01000000, so every run with
its own cluster has that id. If two such runs transfer weights at the same time, one takes the other's socket and both
wait forever. Remove when veRL's name includes the cluster.
"""

import hashlib
import os
from collections.abc import Callable
from typing import Any

import ray


def name_of_the_job() -> str:
    """Return Ray's job id with a digest of the cluster's session name, short enough for a socket path."""
    context = ray.get_runtime_context()
    return f"{context.get_job_id()}-{hashlib.sha256(context.get_session_name().encode()).hexdigest()[:12]}"


def patched(original: Callable[..., None], self: Any, *args: Any, **kwargs: Any) -> None:
    """Rename the sender's socket, or set the job id from which the server's engine, the receiver, derives the name."""
    original(self, *args, **kwargs)
    if hasattr(self, "zmq_handle"):
        self.zmq_handle = self.zmq_handle.replace(ray.get_runtime_context().get_job_id(), name_of_the_job())
    else:
        os.environ["VERL_RAY_JOB_ID"] = name_of_the_job()
