"""Rollouts by our worker or veRL's, with stand-ins for vLLM, the reward workers and the transfer queue."""

import asyncio
import pickle
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from PIL import Image
from tensordict import TensorDict
from verl.trainer.ppo.v1 import agent_loop_tq
from verl.workers.rollout.replica import TokenOutput

from mmupt.compose import load_recipe
from verl_ext.rewards.group_request import GroupRequest, ResponseScore
from verl_ext.rollout import shared_features
from verl_ext.rollout.agent_loop import _AgentLoopWorkerTQ
from verl_ext.rollout.shared_features import PARTITION

N = 3


def message(text: str, *images: Image.Image) -> list[dict[str, Any]]:
    parts = [{"type": "image", "image": image} for image in images]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def picture(width: int, height: int) -> Image.Image:
    file = BytesIO()
    Image.effect_noise((width, height), 90).convert("RGB").save(file, format="PNG")
    return Image.open(file)


PROMPTS = {
    "square": message("what is the area of the triangle ?", picture(84, 84)),
    "odd sides": message("what is the sum ?", picture(131, 90)),
    "two images": message("what is the total ?", picture(84, 84), picture(300, 60)),
    "text only": [{"role": "user", "content": "what is the sum of 2 and 4 ?"}],
}


class Server:
    """Stand-in for vLLM: its first response to a prompt has one token, its second two, and so on.

    Args:
        watch: receives each request.
        respond: returns the tokens of a prompt's n-th response, n from 1; they must grow with n.
    """

    def __init__(
        self,
        watch: Callable[[dict[str, Any]], None] = lambda request: None,
        respond: Callable[[int], list[int]] = lambda number: list(range(30, 30 + number)),
    ) -> None:
        self.requests = 0
        self._watch = watch
        self._respond = respond

    async def generate(self, **request: Any) -> TokenOutput:
        self.requests += 1
        self._watch(request)
        tokens = self._respond(self.requests)
        return TokenOutput(token_ids=tokens, log_probs=[-1.0] * len(tokens), stop_reason="completed", extra_fields={})


class RewardWorker:
    def __init__(self) -> None:
        self.compute_score = self

    async def remote(self, request: GroupRequest) -> list[ResponseScore]:
        return [ResponseScore(1.0, {}) for _ in request.response_ids]


def configuration(agent_loop: str, overrides: Sequence[str] = ()) -> DictConfig:
    return load_recipe(
        "mmupt_tiny",
        [
            f"actor_rollout_ref.rollout.n={N}",
            f"actor_rollout_ref.rollout.agent.default_agent_loop={agent_loop}",
            "actor_rollout_ref.rollout.prompt_length=512",
            *overrides,
        ],
    )[0]


def rollout(
    worker_class: type,
    agent_loop: str,
    monkeypatch: pytest.MonkeyPatch,
    server: Server | None = None,
    prompts: Mapping[str, list[dict[str, Any]]] = PROMPTS,
    overrides: Sequence[str] = (),
) -> tuple[dict[tuple[str, int], dict[str, Any]], int]:
    """Roll out every prompt.

    Returns the rows put into the transfer queue, by prompt and response length, and the number of processor calls.
    """
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    stored: dict[str, TensorDict] = {}
    calls = 0

    async def put(key: str, partition_id: str, tag: dict[str, Any], fields: dict[str, Any] | None = None) -> None:
        if fields is not None:
            assert partition_id == PARTITION and key not in stored, "features are stored once per group"
            stored[key] = TensorDict({name: value.unsqueeze(0) for name, value in fields.items()}, batch_size=[1])

    async def put_batch(keys: list[str], fields: TensorDict, tags: list[dict], partition_id: str) -> None:
        for i, key in enumerate(keys):
            row = {name: fields[name][i] for name in fields.keys()}
            # Pickled like on the way to the actor.
            row["multi_modal_inputs"] = pickle.loads(pickle.dumps(plain(row["multi_modal_inputs"])))
            rows[key.split("_")[0], len(row["responses"])] = row | {"tag": tags[i], "key": key}

    def get(keys: list[str], partition_id: str) -> TensorDict:
        assert partition_id == PARTITION
        return stored[keys[0]]

    monkeypatch.setattr(shared_features.tq, "kv_batch_get", get)

    monkeypatch.setattr(agent_loop_tq.tq, "init", lambda: None)
    monkeypatch.setattr(agent_loop_tq.tq, "async_kv_put", put)
    monkeypatch.setattr(agent_loop_tq.tq, "async_kv_batch_put", put_batch)

    async def body() -> None:
        nonlocal calls, server
        server = server or Server()
        worker = worker_class(configuration(agent_loop, overrides), server, None, [RewardWorker()])
        if worker_class is _AgentLoopWorkerTQ:
            worker.reward_loop_worker_handles = None
        # A family without images has no processor.
        caller = type(worker.processor or worker.tokenizer)
        process = caller.__call__

        def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            return process(self, *args, **kwargs)

        with monkeypatch.context() as patched:
            patched.setattr(caller, "__call__", counted)
            for uid, messages in prompts.items():
                server.requests = 0
                prompt = {"uid": uid, "id": uid, "raw_prompt": messages, "global_steps": 1, "agent_name": agent_loop}
                await worker._run_prompt(prompt, {}, {"step": 1, "sample_index": 0, "rollout_n": 0, "validate": False})

    asyncio.run(body())
    return rows, calls


def plain(value: Any) -> Any:
    return getattr(value, "data", value) if not isinstance(value, torch.Tensor) else value
