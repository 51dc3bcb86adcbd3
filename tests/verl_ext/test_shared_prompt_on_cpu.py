"""One pass per image: the sessions of a prompt share its processing and its features, and train on veRL's tensors."""

import asyncio
import gc
import pickle
import weakref
from io import BytesIO
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from PIL import Image
from tensordict import TensorDict
from verl.trainer.ppo.v1 import agent_loop_tq
from verl.utils.model import extract_multi_modal_inputs
from verl.workers.rollout.replica import TokenOutput

from recipes.mmupt.compose import load_recipe
from verl_ext.rewards.request import GroupRequest, ResponseScore
from verl_ext.rollout import agent_loop, shared_features
from verl_ext.rollout.agent_loop import GroupAgentLoopWorker, _AgentLoopWorkerTQ
from verl_ext.rollout.shared_features import PARTITION, SharedFeatures
from verl_ext.rollout.shared_prompt import OneReplicaClient, SharedPrompt, current_prompt

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
    "text alone": [{"role": "user", "content": "what is the sum of 2 and 4 ?"}],
}


class Server:
    """Stands for vLLM: its first response to a prompt has one token, its second two, and so on."""

    def __init__(self) -> None:
        self.requests = 0

    async def generate(self, **request: Any) -> TokenOutput:
        self.requests += 1
        tokens = [30 + token for token in range(self.requests)]
        return TokenOutput(token_ids=tokens, log_probs=[-1.0] * len(tokens), stop_reason="completed", extra_fields={})


class RewardWorker:
    def __init__(self) -> None:
        self.compute_score = self

    async def remote(self, request: GroupRequest) -> list[ResponseScore]:
        return [ResponseScore(1.0, {}) for _ in request.response_ids]


def configuration(agent_loop: str) -> DictConfig:
    return load_recipe(
        "mmupt_tiny",
        [
            f"actor_rollout_ref.rollout.n={N}",
            f"actor_rollout_ref.rollout.agent.default_agent_loop={agent_loop}",
            "actor_rollout_ref.rollout.prompt_length=512",
        ],
    )[0]


def rollout(
    worker_class: type, agent_loop: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[tuple[str, int], dict[str, Any]], int]:
    """Roll every prompt out.

    Returns what is put into the transfer queue, by prompt and length of response, and the number of processor calls.
    """
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    stored: dict[str, TensorDict] = {}
    calls = 0

    async def put(key: str, partition_id: str, tag: dict[str, Any], fields: dict[str, Any] | None = None) -> None:
        if fields is not None:
            assert partition_id == PARTITION and key not in stored, "features are stored once a group"
            stored[key] = TensorDict({name: value.unsqueeze(0) for name, value in fields.items()}, batch_size=[1])

    async def put_batch(keys: list[str], fields: TensorDict, tags: list[dict], partition_id: str) -> None:
        for i, key in enumerate(keys):
            row = {name: fields[name][i] for name in fields.keys()}
            # As it arrives in the actor.
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
        nonlocal calls
        server = Server()
        worker = worker_class(configuration(agent_loop), server, None, [RewardWorker()])
        if worker_class is _AgentLoopWorkerTQ:
            worker.reward_loop_worker_handles = None
        process = type(worker.processor).__call__

        def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            return process(self, *args, **kwargs)

        with monkeypatch.context() as patched:
            patched.setattr(type(worker.processor), "__call__", counted)
            for uid, messages in PROMPTS.items():
                server.requests = 0
                prompt = {"uid": uid, "id": uid, "raw_prompt": messages, "global_steps": 1, "agent_name": agent_loop}
                await worker._run_prompt(prompt, {}, {"step": 1, "sample_index": 0, "rollout_n": 0, "validate": False})

    asyncio.run(body())
    return rows, calls


def plain(value: Any) -> Any:
    return getattr(value, "data", value) if not isinstance(value, torch.Tensor) else value


def test_one_processor_call_a_prompt_gives_exactly_the_tensors_of_plain_verl(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, our_calls = rollout(GroupAgentLoopWorker, "shared_prompt_agent", monkeypatch)
    features = {key: dict(row["multi_modal_inputs"].items()) for key, row in ours.items()}
    verls, verls_calls = rollout(_AgentLoopWorkerTQ, "single_turn_agent", monkeypatch)
    assert our_calls == len(PROMPTS) and verls_calls == 2 * N * len(PROMPTS)
    assert ours.keys() == verls.keys() and len(ours) == N * len(PROMPTS)
    assert {row["key"] for row in ours.values()} == {row["key"] for row in verls.values()}
    for key, row in ours.items():
        assert row.keys() - {"rm_scores"} == verls[key].keys()
        assert row["tag"] == verls[key]["tag"]
        for name in ("prompts", "responses", "response_mask", "input_ids", "position_ids", "loss_mask"):
            assert torch.equal(row[name], verls[key][name]), (key, name)
        verls_features = verls[key]["multi_modal_inputs"]
        assert features[key].keys() == verls_features.keys()
        for name, value in features[key].items():
            assert torch.equal(value, verls_features[name]), (key, name)
    assert "pixel_values" in features["square", 1] and "pixel_values" not in features["text alone", 1]


def test_the_engine_collates_shared_features_as_it_does_verls_own(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, _ = rollout(GroupAgentLoopWorker, "shared_prompt_agent", monkeypatch)
    ours_collated = extract_multi_modal_inputs([row["multi_modal_inputs"] for _, row in sorted(ours.items())])
    verls, _ = rollout(_AgentLoopWorkerTQ, "single_turn_agent", monkeypatch)
    verls_collated = extract_multi_modal_inputs([row["multi_modal_inputs"] for _, row in sorted(verls.items())])
    assert ours_collated.keys() == verls_collated.keys()
    assert all(torch.equal(ours_collated[name], verls_collated[name]) for name in ours_collated)


def test_rows_hold_neither_features_nor_images(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, _ = rollout(GroupAgentLoopWorker, "shared_prompt_agent", monkeypatch)
    for row in ours.values():
        assert len(pickle.dumps(row["multi_modal_inputs"])) < 1000
        assert len(pickle.dumps(plain(row["raw_prompt"]))) < 1000
    assert plain(ours["two images", 1]["raw_prompt"])[0]["content"] == [
        {"type": "image"}, {"type": "image"}, {"type": "text", "text": "what is the total ?"},
    ]  # fmt: skip


def test_the_rows_of_a_group_fetch_its_features_once_and_nothing_is_kept_without_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fetched: list[str] = []

    def get(keys: list[str], partition_id: str) -> TensorDict:
        fetched.extend(keys)
        return TensorDict({"pixel_values": torch.zeros(1, 10)}, batch_size=[1])

    monkeypatch.setattr(shared_features.tq, "kv_batch_get", get)
    rows = [pickle.loads(pickle.dumps(SharedFeatures(uid))) for uid in ("a", "a", "b", "a", "b")]
    assert all("pixel_values" in row and "image_bound" not in row for row in rows)
    assert fetched == ["a", "b"] and torch.equal(rows[0].get("pixel_values"), torch.zeros(10))
    del rows
    assert len(shared_features._held) == 0


def test_another_agent_loop_in_the_same_worker_still_works_as_in_verl(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, calls = rollout(GroupAgentLoopWorker, "single_turn_agent", monkeypatch)
    assert len(ours) == N * len(PROMPTS) and calls == 2 * N * len(PROMPTS)


def test_an_error_in_shared_work_is_everybodys_and_work_is_done_once() -> None:
    async def body() -> None:
        calls = []

        async def fail() -> None:
            calls.append(1)
            await asyncio.sleep(0)
            raise OSError("truncated image")

        prompt = SharedPrompt("u")
        results = await asyncio.gather(*(prompt.once("media", fail) for _ in range(3)), return_exceptions=True)
        assert [str(result) for result in results] == ["truncated image"] * 3 and len(calls) == 1

    asyncio.run(body())


def test_a_cancelled_session_does_not_take_shared_work_away_from_the_others() -> None:
    async def body() -> None:
        prompt, started = SharedPrompt("u"), asyncio.Event()

        async def work() -> str:
            started.set()
            await asyncio.sleep(0.01)
            return "done"

        first = asyncio.create_task(prompt.once("media", work))
        await started.wait()
        second = asyncio.create_task(prompt.once("media", work))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == "done"

    asyncio.run(body())


def test_what_a_prompt_shares_is_freed_with_its_last_session_without_a_search_for_cycles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prompts: list[weakref.ref[SharedPrompt]] = []

    class Watched(SharedPrompt):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            prompts.append(weakref.ref(self))

    monkeypatch.setattr(agent_loop, "SharedPrompt", Watched)
    gc.disable()
    try:
        rollout(GroupAgentLoopWorker, "shared_prompt_agent", monkeypatch)
        assert len(prompts) == len(PROMPTS) and not any(prompt() for prompt in prompts)
    finally:
        gc.enable()
