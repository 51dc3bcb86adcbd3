"""Patch `ServerAdapter.__init__` and `vLLMHttpServer.__init__`: each run sends weights through its own sockets.

veRL names the socket in /tmp after Ray's job id. But the job ids of every Ray cluster start at 01000000, and a run with
its own cluster is always that job: when the weight transfers of two such runs meet, one takes the other's socket and
both wait forever. Remove when veRL's name includes the cluster.
"""

import hashlib
import os
from collections.abc import Callable
from typing import Any

import ray


def name_of_the_job() -> str:
    """Return Ray's job id with a digest of its cluster's session, short enough for the path of a socket."""
    context = ray.get_runtime_context()
    return f"{context.get_job_id()}-{hashlib.sha256(context.get_session_name().encode()).hexdigest()[:12]}"


def patched(original: Callable[..., None], self: Any, *args: Any, **kwargs: Any) -> None:
    """Rename the socket of the sender, or the job id from which the receiving engine of the server derives it."""
    original(self, *args, **kwargs)
    if hasattr(self, "zmq_handle"):
        self.zmq_handle = self.zmq_handle.replace(ray.get_runtime_context().get_job_id(), name_of_the_job())
    else:
        os.environ["VERL_RAY_JOB_ID"] = name_of_the_job()
