"""A failing response, reward worker or transfer queue fails its group instead of hanging it."""

import asyncio
from typing import Any

import pytest
from stand_in_rollout import Rollout
from verl.trainer.ppo.v1 import agent_loop_tq

from verl_ext.datasets.encoded_image import EncodedImage
from verl_ext.rewards.group_request import GroupRequest
from verl_ext.rewards.self_judge import SelfJudgeReward


def test_an_error_of_the_transfer_queue_fails_the_group(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        rollout = Rollout(monkeypatch, n=2)

        async def refuse(**row: Any) -> None:
            raise RuntimeError("no storage")

        monkeypatch.setattr(agent_loop_tq.tq, "async_kv_batch_put", refuse)
        rollout.finish("a")
        await asyncio.wait_for(rollout.prompt("a"), timeout=5)
        assert rollout.status == {"a": "failure"}

    asyncio.run(body())


def test_a_prompt_that_fails_before_its_sessions_start_is_marked_as_failed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def body() -> None:
        rollout = Rollout(monkeypatch, n=2)
        rollout.worker._reward = SelfJudgeReward
        image = EncodedImage(b"no image", (1, 1))
        await rollout.prompt("a", raw_prompt=[{"role": "user", "content": [{"type": "image", "image": image}]}])
        assert rollout.status == {"a": "failure"} and not rollout.worker._groups

    asyncio.run(body())
    assert "prompt a failed" in caplog.text and "is not an image that Pillow reads" in caplog.text


@pytest.mark.parametrize("failing", [{1}, {0, 2, 3}, {0, 1, 2, 3}], ids=["1 of 4", "3 of 4", "4 of 4"])
def test_a_failed_response_leaves_its_group_and_the_others_are_scored(
    monkeypatch: pytest.MonkeyPatch, failing: set[int]
) -> None:
    async def body() -> None:
        rollout = Rollout(monkeypatch, n=4)
        rollout.failing = {("a", session) for session in failing}
        rollout.finish("a", "b")
        await asyncio.wait_for(asyncio.gather(rollout.prompt("a"), rollout.prompt("b")), timeout=5)
        survivors = [[session] for session in range(4) if session not in failing]
        sent = sorted((request.response_ids for request in rollout.requests), key=len)
        assert sent == ([survivors] if survivors else []) + [[[0], [1], [2], [3]]]
        assert rollout.status == {"a": "failure", "b": "finished"}
        assert rollout.puts.count([f"a_{session}_0" for (session,) in survivors]) == bool(survivors)
        assert rollout.worker._groups == {} and rollout.worker._rows == {}

    asyncio.run(body())


@pytest.mark.parametrize("failing", [set(), {1}, {0, 2, 4}, {0, 1, 2, 3}], ids=str)
def test_extra_voters_are_not_trained_on_and_the_first_survivors_are(
    monkeypatch: pytest.MonkeyPatch, failing: set[int]
) -> None:
    async def body() -> None:
        rollout = Rollout(monkeypatch, n=2, vote_n=5)
        rollout.failing = {("a", session) for session in failing}
        rollout.finish("a")
        await asyncio.wait_for(rollout.prompt("a"), timeout=5)
        survivors = [session for session in range(5) if session not in failing]
        assert [request.response_ids for request in rollout.requests] == [[[session] for session in survivors]]
        assert rollout.puts == [[f"a_{session}_0" for session in survivors[:2]]]
        assert rollout.status == {"a": "failure" if failing else "finished"}
        assert rollout.worker._groups == {} and rollout.worker._rows == {}

    asyncio.run(body())


def test_a_dead_reward_worker_fails_the_group_instead_of_hanging_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        rollout = Rollout(monkeypatch, n=2)

        async def die(request: GroupRequest) -> None:
            raise RuntimeError("actor died")

        for worker in rollout.reward_workers:
            worker.remote = die
        rollout.finish("a")
        await asyncio.wait_for(rollout.prompt("a"), timeout=5)
        assert rollout.status == {"a": "failure"}

    asyncio.run(body())
