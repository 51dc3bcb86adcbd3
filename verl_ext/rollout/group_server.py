"""veRL's vLLM replica with a server that accepts the requests of a prompt's sessions in one call.

`verl_ext.rollout.vllm_replica` registers it for `rollout.name=vllm`; `verl_ext.rollout.group_client` makes the calls.
"""

import asyncio
from typing import Any

import ray
from verl.workers.rollout.replica import TokenOutput
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer, vLLMReplica


class GroupServer(vLLMHttpServer):
    """veRL's server plus a method for all requests of a prompt."""

    async def generate_group(
        self, request_ids: list[str], *, sampling_params: dict[str, Any], **request: Any
    ) -> list[TokenOutput]:
        """Answer requests that differ only in their ids, in order; raises if `generate` raises for one of them."""
        # Copied, because `generate` modifies its sampling parameters.
        requests = [
            self.generate(request_id=request_id, sampling_params=dict(sampling_params), **request)
            for request_id in request_ids
        ]
        return list(await asyncio.gather(*requests))


class GroupReplica(vLLMReplica):
    """veRL's replica with `GroupServer`s."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.server_class = ray.remote(GroupServer)
