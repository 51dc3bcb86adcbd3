"""Requests of a prompt's sessions share the acquisition of a replica and, if they are equal, the call to it."""

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from verl.workers.rollout.llm_server import LLMServerClient
from verl.workers.rollout.replica import RolloutReplicaRegistry, TokenOutput

from verl_ext.rollout.group_client import with_shared_calls

N = 8


def method(call: Callable[..., Any]) -> SimpleNamespace:
    return SimpleNamespace(remote=call)


class Server:
    """Handle of a server whose response to a request is one token, the request's position in its call."""

    def __init__(self, calls: list[dict[str, Any]], error: Exception | None = None) -> None:
        async def generate_group(request_ids: list[str], **request: Any) -> list[TokenOutput]:
            calls.append({"ids": request_ids, **request})
            await asyncio.sleep(0.001)
            if error is not None:
                raise error
            return [TokenOutput(token_ids=[number], extra_fields={}) for number in range(len(request_ids))]

        self.generate = method(None)  # type: ignore[arg-type]
        self.generate_group = method(generate_group)


class ServerOfAnotherEngine:
    def __init__(self, calls: list[dict[str, Any]]) -> None:
        async def generate(**request: Any) -> TokenOutput:
            calls.append(request)
            return TokenOutput(token_ids=[0], extra_fields={})

        self.generate = method(generate)


class Balancer:
    """Handle of veRL's load balancer over one server."""

    def __init__(self, server: Any, error: Exception | None = None) -> None:
        self.acquired: list[str] = []
        self.released: list[str] = []

        async def acquire(request_id: str) -> tuple[str, Any]:
            self.acquired.append(request_id)
            await asyncio.sleep(0)
            if error is not None:
                raise error
            return "server 1", server

        async def no_fields() -> list[str]:
            return []

        self.acquire_server, self.release_server = method(acquire), method(self._release)
        self.require_acquire_fields = self.require_release_fields = method(no_fields)

    def _release(self, server_id: str) -> None:
        self.released.append(server_id)


def client(balancer: Balancer) -> LLMServerClient:
    rollout = SimpleNamespace(full_determinism=False, name="vllm")
    config: Any = SimpleNamespace(actor_rollout_ref=SimpleNamespace(rollout=rollout))
    return with_shared_calls(LLMServerClient(config, balancer))  # type: ignore[arg-type]


def generate(llm: LLMServerClient, uid: str, **request: Any) -> Awaitable[TokenOutput]:
    return llm.generate(uid, **{"prompt_ids": [1, 2], "sampling_params": {"temperature": 1.0}, **request})


def gather(*requests: Callable[[], Awaitable[Any]]) -> list[Any]:
    async def body() -> list[Any]:
        outputs = await asyncio.gather(*(request() for request in requests), return_exceptions=True)
        # Replicas are released in the event loop's next turn.
        await asyncio.sleep(0)
        return outputs

    return asyncio.run(body())


def test_the_sessions_of_a_prompt_share_one_call_and_one_replica() -> None:
    calls: list[dict[str, Any]] = []
    balancer = Balancer(Server(calls))
    llm = client(balancer)
    outputs = gather(*[lambda uid=uid: generate(llm, uid) for uid in ("a", "b") for _ in range(N)])
    assert [output.token_ids for output in outputs] == [[number] for number in range(N)] * 2
    assert [len(call["ids"]) for call in calls] == [N, N]
    assert len({name for call in calls for name in call["ids"]}) == 2 * N, "vLLM refuses the same id twice"
    assert balancer.acquired == ["a", "b"] and balancer.released == ["server 1"] * 2


def test_different_requests_are_separate_calls() -> None:
    calls: list[dict[str, Any]] = []
    llm = client(Balancer(Server(calls)))
    image, other = [torch.zeros(2)], [torch.zeros(2)]
    kinds: list[dict[str, Any]] = [
        {},
        {"prompt_ids": [1, 2, 3]},
        {"sampling_params": {"temperature": 0.0}},
        {"image_data": image},
        {"image_data": other},
        {"mm_processor_kwargs": {"fps": 1}},
        {"priority": 1},
    ]
    gather(*[lambda kind=kind: generate(llm, "a", **kind) for kind in kinds for _ in range(2)])
    assert [len(call["ids"]) for call in calls] == [2] * len(kinds)


def test_a_later_request_is_a_separate_call_to_the_same_replica() -> None:
    calls: list[dict[str, Any]] = []
    balancer = Balancer(Server(calls))
    llm = client(balancer)

    async def later() -> TokenOutput:
        await asyncio.sleep(0.0005)
        return await generate(llm, "a")

    gather(lambda: generate(llm, "a"), later)
    assert [len(call["ids"]) for call in calls] == [1, 1]
    assert balancer.acquired == ["a"] and balancer.released == ["server 1"]


def test_an_error_of_a_call_is_raised_by_all_its_requests() -> None:
    balancer = Balancer(Server([], RuntimeError("the engine has died")))
    llm = client(balancer)
    assert [str(error) for error in gather(lambda: generate(llm, "a"), lambda: generate(llm, "a"))] == [
        "the engine has died"
    ] * 2
    assert balancer.released == ["server 1"]


def test_the_next_request_tries_again_to_acquire_a_replica_after_a_failure() -> None:
    balancer = Balancer(None, RuntimeError("No available servers in load balancer"))
    llm = client(balancer)
    for times in (1, 2):
        errors = gather(lambda: generate(llm, "a"), lambda: generate(llm, "a"))
        assert [str(error) for error in errors] == ["No available servers in load balancer"] * 2
        assert balancer.acquired == ["a"] * times and balancer.released == []


@pytest.mark.parametrize("turns", range(5))
def test_a_cancelled_session_does_not_affect_the_others(turns: int) -> None:
    calls: list[dict[str, Any]] = []
    balancer = Balancer(Server(calls))
    llm = client(balancer)

    async def cancelled() -> None:
        session = asyncio.ensure_future(generate(llm, "a"))
        for _ in range(turns):
            await asyncio.sleep(0)
        session.cancel()
        await session

    first, second = gather(cancelled, lambda: generate(llm, "a"))
    assert isinstance(first, asyncio.CancelledError) and isinstance(second, TokenOutput)
    assert len(balancer.acquired) == len(balancer.released)


def test_a_server_of_another_engine_gets_each_request_unchanged() -> None:
    calls: list[dict[str, Any]] = []
    llm = client(Balancer(ServerOfAnotherEngine(calls)))
    gather(*[lambda: generate(llm, "a")] * 2)
    assert len(calls) == 2 and calls[0].keys() == {
        "request_id",
        "prompt_ids",
        "sampling_params",
        "image_data",
        "video_data",
    }


def test_verls_vllm_replica_uses_the_server_that_accepts_these_calls() -> None:
    replica = RolloutReplicaRegistry.get("vllm")
    assert (replica.__module__, replica.__name__) == ("verl_ext.rollout.group_server", "GroupReplica")
