"""A client that makes one call per prompt where veRL's client makes three per response.

For each response, veRL's client acquires a replica from the load balancer, sends the request, and releases the
replica: three Ray calls, which cost more than the work on the response itself. Here the sessions of a prompt share one
acquisition, and simultaneous requests that differ only in their ids become one call (`verl_ext.rollout.group_server`).
These requests also reach vLLM together, which then runs fewer and larger batches.
"""

import asyncio
import copy
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from verl.workers.rollout.llm_server import LLMServerClient

# Arguments compared by value. All others are compared by identity, because they may contain tensors.
_COMPARED = ("prompt_ids", "sampling_params", "mm_processor_kwargs")


def with_shared_calls(client: LLMServerClient) -> LLMServerClient:
    """Return a copy of a veRL client whose requests with the same id share a replica and calls.

    A client without a load balancer routes requests itself and is returned unchanged.
    """
    if getattr(client, "_load_balancer", None) is None:
        return client
    shared = copy.copy(client)
    shared._load_balancer = SharedBalancer(client._load_balancer)
    return shared


class _Method:
    """Mimics a method of a Ray actor handle."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.remote = call


@dataclass
class _Acquired:
    """A replica, held from the first request with an id until the last request with that id releases it."""

    request_id: str
    replica: asyncio.Future[tuple[str, Any]]
    holders: int = 0


class SharedBalancer:
    """Mimics the handle of veRL's load balancer, but acquires a replica once for all requests in flight with one id.

    It returns an `_Acquired` as the id of the replica; the client only passes this id back.
    """

    def __init__(self, balancer: Any) -> None:
        self._balancer = balancer
        self._acquired: dict[str, _Acquired] = {}
        self.acquire_server = _Method(self._acquire)
        self.release_server = _Method(self._release)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._balancer, name)

    async def _acquire(self, request_id: str, **fields: Any) -> tuple[_Acquired, Any]:
        acquired = self._acquired.get(request_id)
        if acquired is None:
            replica = asyncio.ensure_future(self._open(request_id, fields))
            acquired = self._acquired[request_id] = _Acquired(request_id, replica)
        acquired.holders += 1
        try:
            # Shielded, because a cancelled session must not cancel the others.
            _, server = await asyncio.shield(acquired.replica)
        except BaseException:
            self._release(acquired)
            raise
        return acquired, server

    async def _open(self, request_id: str, fields: dict[str, Any]) -> tuple[str, Any]:
        server_id, server = await self._balancer.acquire_server.remote(request_id=request_id, **fields)
        return server_id, RequestCollector(server)

    def _release(self, server_id: _Acquired, **fields: Any) -> None:
        acquired = server_id
        acquired.holders -= 1
        if acquired.holders:
            return
        if self._acquired.get(acquired.request_id) is acquired:
            del self._acquired[acquired.request_id]
        acquired.replica.add_done_callback(lambda replica: self._close(replica, fields))

    def _close(self, replica: asyncio.Future[tuple[str, Any]], fields: dict[str, Any]) -> None:
        if not replica.cancelled() and replica.exception() is None:
            self._balancer.release_server.remote(server_id=replica.result()[0], **fields)


@dataclass
class _Call:
    """Requests that differ only in their ids, and the futures for their answers."""

    request: dict[str, Any]
    ids: list[str] = field(default_factory=list)
    answers: list[asyncio.Future[Any]] = field(default_factory=list)

    def has(self, request: dict[str, Any]) -> bool:
        return request.keys() == self.request.keys() and all(
            value is self.request[name] or (name in _COMPARED and value == self.request[name])
            for name, value in request.items()
        )


class RequestCollector:
    """Mimics the handle of a server; collects the requests of an event loop iteration and sends equal ones as one call.

    A server without `generate_group` (any engine but vLLM) gets each request unchanged.
    """

    def __init__(self, server: Any) -> None:
        self._server = server
        self._calls: list[_Call] = []
        self._sent: set[asyncio.Task[None]] = set()
        self.generate = _Method(self._collect) if hasattr(server, "generate_group") else server.generate

    def _collect(self, *, request_id: str, **request: Any) -> Awaitable[Any]:
        loop = asyncio.get_running_loop()
        if not self._calls:
            loop.call_soon(self._send_all)
        call = next((call for call in self._calls if call.has(request)), None)
        if call is None:
            call = _Call(request)
            self._calls.append(call)
        answer: asyncio.Future[Any] = loop.create_future()
        call.ids.append(request_id)
        call.answers.append(answer)
        return answer

    def _send_all(self) -> None:
        calls, self._calls = self._calls, []
        for call in calls:
            task = asyncio.ensure_future(self._send(call))
            # The event loop keeps only weak references to tasks.
            self._sent.add(task)
            task.add_done_callback(self._sent.discard)

    async def _send(self, call: _Call) -> None:
        try:
            outputs = await self._server.generate_group.remote(call.ids, **call.request)
        except Exception as error:
            for answer in call.answers:
                if not answer.done():
                    answer.set_exception(error)
            return
        for answer, output in zip(call.answers, outputs, strict=True):
            # The future of a cancelled session is already done.
            if not answer.done():
                answer.set_result(output)
