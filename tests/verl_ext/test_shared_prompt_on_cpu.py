"""One pass per image: the sessions of a prompt share its processing and its features, and train on veRL's tensors."""

import asyncio
import gc
import pickle
import time
import weakref
from collections import Counter
from itertools import accumulate
from typing import Any

import pytest
import ray
import torch
from PIL import Image
from rollouts import PROMPTS, N, RewardWorker, Server, configuration, picture, plain, rollout
from tensordict import TensorDict
from verl.experimental.agent_loop import agent_loop as verl_agent_loop
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop
from verl.trainer.ppo.v1 import agent_loop_tq
from verl.utils.model import extract_multi_modal_inputs
from verl.workers.rollout.llm_server import LLMServerClient
from verl.workers.rollout.replica import TokenOutput
from verl.workers.rollout.router import GlobalRequestLoadBalancer

from verl_ext.rollout import agent_loop, shared_features, shared_prompt
from verl_ext.rollout.agent_loop import GroupAgentLoopWorker, _AgentLoopWorkerTQ
from verl_ext.rollout.queue_rows import VOTED_QUESTION
from verl_ext.rollout.shared_features import SharedFeatures
from verl_ext.rollout.shared_prompt import (
    OneReplicaClient,
    SentImages,
    SharedPrompt,
    SharedPromptAgentLoop,
    current_prompt,
)


def test_one_processor_call_per_prompt_gives_exactly_verls_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, our_calls = rollout(GroupAgentLoopWorker, "shared_prompt_agent", monkeypatch)
    features = {key: dict(row["multi_modal_inputs"].items()) for key, row in ours.items()}
    verls, verls_calls = rollout(_AgentLoopWorkerTQ, "single_turn_agent", monkeypatch)
    assert our_calls == len(PROMPTS) and verls_calls == 2 * N * len(PROMPTS)
    assert ours.keys() == verls.keys() and len(ours) == N * len(PROMPTS)
    assert {row["key"] for row in ours.values()} == {row["key"] for row in verls.values()}
    for key, row in ours.items():
        assert row.keys() - {"rm_scores", VOTED_QUESTION} == verls[key].keys()
        assert row["tag"] == verls[key]["tag"]
        for name in ("prompts", "responses", "response_mask", "input_ids", "position_ids", "loss_mask"):
            assert torch.equal(row[name], verls[key][name]), (key, name)
        verls_features = verls[key]["multi_modal_inputs"]
        assert features[key].keys() == verls_features.keys()
        for name, value in features[key].items():
            assert torch.equal(value, verls_features[name]), (key, name)
    assert "pixel_values" in features["square", 1] and "pixel_values" not in features["text only", 1]


def test_the_engine_collates_shared_features_like_verls_own(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, _ = rollout(GroupAgentLoopWorker, "shared_prompt_agent", monkeypatch)
    ours_collated = extract_multi_modal_inputs([row["multi_modal_inputs"] for _, row in sorted(ours.items())])
    verls, _ = rollout(_AgentLoopWorkerTQ, "single_turn_agent", monkeypatch)
    verls_collated = extract_multi_modal_inputs([row["multi_modal_inputs"] for _, row in sorted(verls.items())])
    assert ours_collated.keys() == verls_collated.keys()
    assert all(torch.equal(ours_collated[name], verls_collated[name]) for name in ours_collated)


class ShoutingAgentLoop(SharedPromptAgentLoop):
    """Ends all responses with the same token."""

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> Any:
        output = await super().run(sampling_params, **kwargs)
        output.response_ids[-1] = 40
        return output


def test_a_subclass_of_our_agent_loop_sends_the_same_images(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: dict[str, list[Any]] = {"shared_prompt_agent": [], "shouting_agent": []}
    loop = ShoutingAgentLoop
    target = {"_target_": f"{loop.__module__}.{loop.__qualname__}"}
    monkeypatch.setitem(verl_agent_loop._agent_loop_registry, "shouting_agent", target)
    rows = {name: rollout(GroupAgentLoopWorker, name, monkeypatch, Server(sent[name].append))[0] for name in sent}
    ours, theirs = ([request["image_data"] for request in requests] for requests in sent.values())
    assert ours == theirs and any(isinstance(images, list) for images in theirs)
    for key, row in rows["shouting_agent"].items():
        assert torch.equal(row["prompts"], rows["shared_prompt_agent"][key]["prompts"])
        assert row["responses"][-1] == 40


def test_rows_contain_neither_features_nor_images(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, _ = rollout(GroupAgentLoopWorker, "shared_prompt_agent", monkeypatch)
    for row in ours.values():
        assert len(pickle.dumps(row["multi_modal_inputs"])) < 1000
        assert len(pickle.dumps(plain(row["raw_prompt"]))) < 1000
    assert plain(ours["two images", 1]["raw_prompt"])[0]["content"] == [
        {"type": "image"}, {"type": "image"}, {"type": "text", "text": "what is the total ?"},
    ]  # fmt: skip


def test_the_rows_of_a_group_fetch_its_features_once_and_release_them_at_the_end(
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


class ObjectStore:
    """Stand-in for the module `ray`."""

    def __init__(self) -> None:
        self.images: list[list[Image.Image]] = []

    def is_initialized(self) -> bool:
        return True

    def put(self, images: list[Image.Image]) -> str:
        self.images.append([image.copy() for image in images])
        return f"reference {len(self.images)}"


def test_no_worker_holds_images_or_pixel_values_while_responses_are_generated(monkeypatch: pytest.MonkeyPatch) -> None:
    store, requests, new_objects = ObjectStore(), [], []
    monkeypatch.setattr(shared_prompt, "ray", store)

    def large_objects() -> list[Any]:
        own = {id(image) for images in store.images for image in images}
        parts = [part for messages in PROMPTS.values() for part in messages[0]["content"] if isinstance(part, dict)]
        own |= {id(part.get("image")) for part in parts}
        return [
            item
            for item in gc.get_objects()
            if (type(item) is torch.Tensor and item.dim() == 2 and item.shape[1] == 1176)
            or (isinstance(item, Image.Image) and item.width > 1 and id(item) not in own)
        ]

    gc.collect()
    before = len(large_objects())

    def watch(request: dict[str, Any]) -> None:
        requests.append(request)
        # The processor's thread releases its arguments a moment after the call has returned.
        time.sleep(0.05)
        new_objects.append(len(large_objects()) - before)

    rollout(GroupAgentLoopWorker, "shared_prompt_agent", monkeypatch, Server(watch))
    assert new_objects == [0] * (N * len(PROMPTS))
    # Put once per prompt, and unchanged.
    assert [request["image_data"] for request in requests] == [
        *["reference 1"] * N, *["reference 2"] * N, *["reference 3"] * N, *[None] * N,
    ]  # fmt: skip
    assert [[image.size for image in images] for images in store.images] == [
        [(84, 84)], [(140, 84)], [(84, 84), (308, 56)],
    ]  # fmt: skip
    assert "image" in PROMPTS["square"][0]["content"][0]


def test_only_a_few_prompts_are_processed_concurrently(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[int] = []
    process = SingleTurnAgentLoop.ct_build_initial_tokens

    async def build(self: Any, *args: Any, **kwargs: Any) -> list[int]:
        tokens = await process(self, *args, **kwargs)
        events.append(1)
        return tokens

    async def store(uid: str, features: dict[str, torch.Tensor]) -> None:
        await asyncio.sleep(0.02)
        events.append(-1)

    async def put(*args: Any, **kwargs: Any) -> None:
        return None

    monkeypatch.setattr(SingleTurnAgentLoop, "ct_build_initial_tokens", build)
    monkeypatch.setattr(shared_prompt, "store", store)
    for name in ("async_kv_put", "async_kv_batch_put"):
        monkeypatch.setattr(agent_loop_tq.tq, name, put)
    monkeypatch.setattr(agent_loop_tq.tq, "init", lambda: None)
    trajectory = {"step": 1, "sample_index": 0, "rollout_n": 0, "validate": False}

    async def body() -> None:
        worker = GroupAgentLoopWorker(configuration("shared_prompt_agent"), Server(), None, [RewardWorker()])
        prompt = {"raw_prompt": PROMPTS["square"], "global_steps": 1, "agent_name": "shared_prompt_agent"}
        await asyncio.gather(
            *(worker._run_prompt({**prompt, "uid": f"u{i}", "id": f"{i}"}, {}, trajectory) for i in range(8))
        )

    asyncio.run(body())
    assert events.count(1) == events.count(-1) == 8
    assert max(accumulate(events)) <= shared_prompt.PROMPTS_AT_A_TIME


class Replica:
    """Stand-in for the Ray actor around an engine."""

    def __init__(self, name: str, served: list[tuple[str, str]]) -> None:
        self.generate, self._name, self._served = self, name, served

    async def remote(self, request_id: str, prompt_ids: list[int], **request: Any) -> TokenOutput:
        self._served.append((self._name, request_id))
        await asyncio.sleep(0.001)
        return TokenOutput(token_ids=[30, 31], log_probs=[-1.0] * 2, stop_reason="completed", extra_fields={})


class Remote:
    """Calls the methods of an object as those of a Ray actor are called."""

    def __init__(self, instance: Any) -> None:
        self._instance = instance

    def __getattr__(self, name: str) -> Any:
        def remote(*args: Any, **kwargs: Any) -> Any:
            result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            result.set_result(getattr(self._instance, name)(*args, **kwargs))
            return result

        return type("Method", (), {"remote": staticmethod(remote)})


def serve(groups: int, keeps_ids: bool = False) -> list[tuple[str, str]]:
    """Send 10 requests per group over four replicas with veRL's client and load balancer. Returns (replica, id)s."""
    served: list[tuple[str, str]] = []
    config = configuration("shared_prompt_agent")
    config.actor_rollout_ref.rollout.full_determinism = keeps_ids

    async def body() -> None:
        replicas = {name: Replica(name, served) for name in "abcd"}
        client = OneReplicaClient(LLMServerClient(config, Remote(GlobalRequestLoadBalancer(replicas))), keeps_ids)

        async def group(number: int) -> None:
            current_prompt.set(SharedPrompt(f"uid{number}"))
            sessions = [client.generate(f"{number} {i}", prompt_ids=[number], sampling_params={}) for i in range(10)]
            await asyncio.gather(*sessions)

        await asyncio.gather(*(asyncio.create_task(group(number)) for number in range(groups)))

    asyncio.run(body())
    return served


def test_each_group_goes_to_one_replica_and_all_replicas_get_equally_many() -> None:
    served = serve(groups=40)
    groups = [{name for name, _ in served[first : first + 10]} for first in range(0, 400, 10)]
    assert all(len(names) == 1 for names in groups)
    assert Counter(name for name, _ in served) == dict.fromkeys("abcd", 100)
    assert len({request_id for _, request_id in served}) == 400, "vLLM refuses the same id twice"


def test_requests_keep_their_ids_if_the_engine_gets_them() -> None:
    assert {request_id for _, request_id in serve(groups=2, keeps_ids=True)} == {
        f"{number} {i}" for number in range(2) for i in range(10)
    }


def test_images_sent_through_ray_arrive_unchanged() -> None:
    # Defined here, as Ray's processes cannot import this module.
    class Engine:
        async def generate(
            self, request_id: str, prompt_ids: list[int], image_data: Any, **request: Any
        ) -> TokenOutput:
            seen = [(type(image).__name__, image.tobytes()) for image in image_data]
            return TokenOutput(
                token_ids=[30], log_probs=[-1.0], extra_fields={"seen": (type(image_data).__name__, seen)}
            )

    images = [picture(84, 84).convert("RGB"), picture(30, 60).convert("RGB")]
    config = configuration("shared_prompt_agent")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        balancer = ray.remote(GlobalRequestLoadBalancer).remote({"a": ray.remote(Engine).remote()})

        async def body() -> list[TokenOutput]:
            client = OneReplicaClient(LLMServerClient(config, balancer), keeps_ids=False)
            current_prompt.set(SharedPrompt("uid"))
            sent = SentImages(list(images))
            sent.send()
            assert isinstance(sent.content, ray.ObjectRef)
            requests = [client.generate(f"{i}", prompt_ids=[1], sampling_params={}, image_data=sent) for i in range(2)]
            return await asyncio.gather(*requests)

        outputs = asyncio.run(body())
    finally:
        ray.shutdown()
    expected = ("list", [("Image", image.tobytes()) for image in images])
    assert [output.extra_fields["seen"] for output in outputs] == [expected] * 2


def test_other_agent_loops_still_work_as_in_verl(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, calls = rollout(GroupAgentLoopWorker, "single_turn_agent", monkeypatch)
    assert len(ours) == N * len(PROMPTS) and calls == 2 * N * len(PROMPTS)


def test_an_error_in_shared_work_reaches_every_session_and_the_work_is_done_once() -> None:
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


def test_a_cancelled_session_does_not_cancel_shared_work() -> None:
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


def test_shared_results_are_freed_with_the_last_session_without_garbage_collection(
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
