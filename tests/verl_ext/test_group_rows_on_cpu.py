"""Rows and tags of a group in the transfer queue: what they hold, and when they are put there."""

import asyncio
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from stand_in_rollout import Rollout
from tensordict import TensorDict
from verl.experimental.agent_loop import AgentLoopOutput
from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics

from verl_ext.rewards.group_request import AccuracyRequest, GroupAccuracy, ResponseScore
from verl_ext.rollout import queue_rows
from verl_ext.rollout.agent_loop import GroupAgentLoopManager, _AgentLoopWorkerTQ
from verl_ext.rollout.queue_rows import VOTED_QUESTION
from verl_ext.votes import vote
from verl_ext.votes.vote_files import VotedQuestion
from verl_ext.votes.vote_record import VoteRecord


def test_the_rows_of_a_group_are_put_at_once_before_the_group_finishes(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        rollout = Rollout(monkeypatch, n=3)
        running = asyncio.create_task(rollout.prompt("a"))
        rollout.finish("a")
        while not rollout.puts:
            await asyncio.sleep(0)
        assert rollout.puts == [["a_0_0", "a_1_0", "a_2_0"]] and rollout.status == {"a": "running"}
        await running
        assert len(rollout.puts) == 1

    asyncio.run(body())


def test_rows_with_different_fields_are_put_separately(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[list[str], set[str]]] = []

    async def put_batch(keys: list[str], fields: TensorDict, tags: list[dict], partition_id: str) -> None:
        calls.append((keys, set(fields.keys())))

    monkeypatch.setattr(queue_rows.tq, "async_kv_batch_put", put_batch)
    some, other = {"responses": torch.zeros(2)}, {"responses": torch.zeros(3), "rollout_log_probs": torch.zeros(3)}
    asyncio.run(
        queue_rows.put(
            [
                queue_rows.QueueRow("a", some, {}),
                queue_rows.QueueRow("b", other, {}),
                queue_rows.QueueRow("c", some, {}),
            ]
        )
    )
    assert calls == [(["a", "c"], {"responses"}), (["b"], {"responses", "rollout_log_probs"})]


@pytest.mark.parametrize("failing", [set(), {0, 2}], ids=str)
def test_the_first_row_holds_the_whole_group_with_the_ground_truth_that_the_vote_never_saw(
    monkeypatch: pytest.MonkeyPatch, failing: set[int]
) -> None:
    async def compute(request: Any) -> Any:
        if isinstance(request, AccuracyRequest):
            return GroupAccuracy(request.record, "7", [answer == "7" for answer in request.answers])
        assert "truth" not in repr(request).replace("ground_truth=None", "")
        answers = ["4" if response == [1] else "7" for response in request.response_ids]
        result = vote(answers)
        record = VoteRecord(result, 0.5).to_extra_info()
        return [
            ResponseScore(reward + 0.5, {"answer": answer, **record}, f"It is {answer}.")
            for answer, reward in zip(answers, result.rewards, strict=True)
        ]

    async def body() -> None:
        rollout = Rollout(monkeypatch, n=3, vote_n=4, reward_workers=1)
        rollout.worker._measures_accuracy = rollout.worker._records_votes = True
        rollout.reward_workers[0].remote = compute
        rollout.failing = {("a", session) for session in failing}
        rollout.finish("a")
        parts = [{"type": "image"}, {"type": "text", "text": " Find x. "}, {"type": "text", "text": "Think."}]
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": parts}]
        await rollout.prompt("a", raw_prompt=messages, choices=["4", "7"])
        sessions = [session for session in range(4) if session not in failing]
        first, *others = (rollout.fields[f"a_{session}_0"][VOTED_QUESTION] for session in sessions[:3])
        assert set(others) == {""}
        voted = VotedQuestion.from_json(first)
        assert (voted.id, voted.question, voted.images) == ("row a", "Find x. Think.", 1)
        assert (voted.choices, voted.ground_truth) == (["4", "7"], "7")
        assert [response.text for response in voted.responses] == [f"It is {'4' if s == 1 else '7'}." for s in sessions]
        assert [response.correct for response in voted.responses] == [session != 1 for session in sessions]
        agreed = len(sessions) > 2
        assert [response.reward for response in voted.responses] == [
            1.5 if agreed and s != 1 else 0.5 for s in sessions
        ]
        assert [response.trained for response in voted.responses] == [number < 3 for number in range(len(sessions))]
        # No other field has the texts of responses.
        fields = {name: value for name, value in rollout.fields[f"a_{sessions[0]}_0"].items() if name != VOTED_QUESTION}
        assert "It is" not in repr(fields)

    asyncio.run(body())


def test_a_prompt_is_tagged_with_its_row_id_and_what_it_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        rollout = Rollout(monkeypatch, n=2, reward_workers=1)
        running = asyncio.create_task(rollout.prompt("a"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert rollout.tags["a"] == {"id": "row a", "phase": "generation", "status": "running"}
        rollout.finish("a", "v")
        await running
        assert rollout.tags["a"]["phase"] == "reward worker 0" and rollout.partitions["a"] == "train"
        await rollout.prompt("v", validate=True)
        assert rollout.partitions["v"] == "val"

    asyncio.run(body())


def test_a_prompt_without_a_row_id_is_identified_by_its_uid(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        rollout = Rollout(monkeypatch, n=2)
        rollout.finish("a")
        prompt = {"uid": "a", "agent_name": "fake", "global_steps": 1}
        await rollout.worker._run_prompt(prompt, {}, trajectory={"validate": False})
        assert rollout.tags["a"]["id"] == "a" and rollout.status == {"a": "finished"}

    asyncio.run(body())


@pytest.mark.parametrize("validate", [False, True])
def test_rows_in_verls_format_get_an_id_that_their_responses_carry(
    monkeypatch: pytest.MonkeyPatch, validate: bool
) -> None:
    async def body() -> None:
        rollout = Rollout(monkeypatch, n=2)
        ids = []
        run_agent_loop = _AgentLoopWorkerTQ._run_agent_loop

        async def remember(worker: Any, *args: Any, **kwargs: Any) -> None:
            ids.append(kwargs["id"])
            await run_agent_loop(worker, *args, **kwargs)

        monkeypatch.setattr(_AgentLoopWorkerTQ, "_run_agent_loop", remember)
        rollout.finish("a", "b")
        for uid in ("a", "b"):
            await rollout.prompt(uid, validate, id=None, raw_prompt=[{"role": "user", "content": "Find x."}])
        assert len(ids) == 4 and len(set(ids)) == 1 and rollout.tags["a"]["id"] == ids[0]

    asyncio.run(body())


def test_only_the_outputs_of_trained_sessions_are_put_by_an_agent_loop_with_several_outputs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def body() -> None:
        rollout = Rollout(monkeypatch, n=2, vote_n=4)
        stored: list[int] = []

        async def run_agent_loop(worker: Any, sampling_params: Any, trajectory: Any, **kwargs: Any) -> None:
            outputs = [
                AgentLoopOutput(prompt_ids=[1], response_ids=[turn], response_mask=[1], metrics=AgentLoopMetrics())
                for turn in range(2)
            ]
            await worker._agent_loop_postprocess(outputs, trajectory["validate"], **kwargs)

        async def store(worker: Any, output: list[AgentLoopOutput], validate: bool, **kwargs: Any) -> None:
            stored.append(kwargs["session_id"])

        monkeypatch.setattr(_AgentLoopWorkerTQ, "_run_agent_loop", run_agent_loop)
        monkeypatch.setattr(_AgentLoopWorkerTQ, "_agent_loop_postprocess", store)
        await asyncio.wait_for(rollout.prompt("a"), timeout=5)
        assert sorted(stored) == [0, 1] and rollout.status == {"a": "finished"}

    asyncio.run(body())


def test_any_trainer_but_verls_v1_trainer_is_refused_with_the_command_to_run() -> None:
    config = OmegaConf.create({"transfer_queue": {"enable": False}, "trainer": {"use_v1": True}})
    with pytest.raises(ValueError, match=r"GroupAgentLoopManager needs veRL's v1 trainer: run verl.trainer.main_ppo"):
        GroupAgentLoopManager(config, llm_client=None)
