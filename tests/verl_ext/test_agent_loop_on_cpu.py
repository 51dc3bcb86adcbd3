"""veRL's agent loop worker with groups: what is sent to the reward workers, and when."""

import asyncio
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from omegaconf import OmegaConf
from stand_in_rollout import Rollout
from verl.experimental.agent_loop import AgentLoopOutput
from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics

from verl_ext.rewards.group_request import AccuracyRequest, GroupAccuracy, GroupRequest, ResponseScore
from verl_ext.rewards.group_reward import REWARDS
from verl_ext.rewards.reward_settings import RewardSettings
from verl_ext.rollout import agent_loop
from verl_ext.rollout.agent_loop import GroupAgentLoopWorker, _AgentLoopWorkerTQ, sampled_log_probs
from verl_ext.votes import vote
from verl_ext.votes.vote_record import VoteRecord


def test_a_group_is_one_request_with_the_responses_of_all_its_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        rollout = Rollout(monkeypatch, n=4)
        rollout.finish("a")
        await rollout.prompt("a")
        assert rollout.requests == [GroupRequest([[0], [1], [2], [3]], validate=False, ground_truth=None)]
        assert rollout.status == {"a": "finished"}
        assert {output.reward_score for output in rollout.outputs.values()} == {4.0}
        assert rollout.outputs["a", 2].extra_fields["reward_extra_info"] == {"answer": "7"}
        assert rollout.worker._groups == {} and rollout.worker._rows == {}

    asyncio.run(body())


def test_the_ground_truth_of_a_training_row_is_sent_only_under_supervision(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        rollout = Rollout(monkeypatch, n=2)
        rollout.finish("a")
        for supervised, truth in ((False, None), (True, "7")):
            rollout.worker.config.data = {"supervised": supervised}
            await rollout.prompt("a")
            (request,) = rollout.requests
            assert request == GroupRequest([[0], [1]], validate=False, ground_truth=truth)
            for worker in rollout.reward_workers:
                worker.requests.clear()

    asyncio.run(body())


def test_the_ground_truth_is_sent_after_the_rewards_are_final_and_does_not_change_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record = VoteRecord(vote(["4", "4", "5", "6"]), 0.5)
    completed = replace(record, label_correct=False, reward_accuracy=0.25)
    sent: list[Any] = []
    receivers: list[int] = []

    async def compute(receiver: int, request: Any) -> Any:
        sent.append(request)
        receivers.append(receiver)
        if isinstance(request, AccuracyRequest):
            return GroupAccuracy(completed, "7", [False, False, False, False])
        info = record.to_extra_info()
        return [ResponseScore(float(number < 2), {"answer": f"{number}", **info}) for number in range(4)]

    async def body() -> None:
        rollout = Rollout(monkeypatch, n=3, vote_n=4, reward_workers=20)
        rollout.worker._measures_accuracy = True
        for number, reward_worker in enumerate(rollout.reward_workers):
            reward_worker.remote = partial(compute, number)
        rollout.finish("a")
        await rollout.prompt("a", choices=["4", "5"])
        group, accuracy = sent
        assert len(set(receivers)) == 1 and rollout.tags["a"]["phase"] == f"reward worker {receivers[0]}"
        expected = GroupRequest([[0], [1], [2], [3]], validate=False, ground_truth=None, choices=["4", "5"])
        assert group == expected and "7" not in repr(group)
        answers, rewards = ["0", "1", "2", "3"], [1.0, 1.0, 0.0]
        assert accuracy == AccuracyRequest("row a", "7", answers, rewards, ["4", "5"], record)
        assert [rollout.outputs["a", session].reward_score for session in range(3)] == [1.0, 1.0, 0.0]
        assert rollout.outputs["a", 2].extra_fields["reward_extra_info"] == {"answer": "2", **completed.to_extra_info()}

    asyncio.run(body())


def test_options_of_other_reward_managers_are_not_read_as_vote_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_AgentLoopWorkerTQ, "__init__", lambda worker, config: setattr(worker, "config", config))
    penalty = {"overlong_buffer_cfg": {"enable": True, "len": 16}}
    reward = {"reward_manager": {"name": "dapo"}, "reward_kwargs": penalty}
    worker = GroupAgentLoopWorker(OmegaConf.create({"reward": reward}))
    assert not worker._scores_groups and worker._settings == RewardSettings()


@pytest.mark.parametrize("answer", [None, "7"])
def test_a_worker_warns_once_with_the_key_to_set_if_no_response_has_an_answer(
    answer: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(agent_loop, "MANY_WITHOUT_ANSWER", 4)

    async def body() -> None:
        rollout = Rollout(monkeypatch, n=2)
        rollout.worker._settings = RewardSettings()
        for reward_worker in rollout.reward_workers:
            reward_worker.answer = answer
        uids = "abcde"
        rollout.finish(*uids)
        for uid in uids:
            await rollout.prompt(uid)

    asyncio.run(body())
    warnings = [message for message in caplog.messages if "has an answer" in message]
    assert len(warnings) == (answer is None)
    for message in warnings:
        assert message.startswith("none of the first 4 responses") and "answers.extraction" in message


def test_a_group_is_scored_while_another_group_still_generates(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        rollout = Rollout(monkeypatch, n=2)
        slow = asyncio.create_task(rollout.prompt("slow"))
        rollout.finish("quick")
        await rollout.prompt("quick")
        assert rollout.status == {"slow": "running", "quick": "finished"} and len(rollout.requests) == 1
        rollout.finish("slow")
        await slow
        assert rollout.status["slow"] == "finished" and len(rollout.requests) == 2

    asyncio.run(body())


def test_rows_without_a_reward_model_are_trained_and_validated_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        rollout = Rollout(monkeypatch, n=2)
        rollout.finish("a", "v")
        await rollout.prompt("a", reward_model=None)
        await rollout.prompt("v", validate=True, reward_model=None)
        assert rollout.status == {"a": "finished", "v": "finished"}
        assert len(rollout.requests) == 3 and all(request.ground_truth is None for request in rollout.requests)

    asyncio.run(body())


def test_prompts_are_grouped_by_uid_even_if_their_text_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        rollout = Rollout(monkeypatch, n=3)
        rollout.finish("a", "b")
        await asyncio.gather(*(rollout.prompt(uid, raw_prompt=[{"role": "user", "content": "same"}]) for uid in "ab"))
        assert [len(request.response_ids) for request in rollout.requests] == [3, 3]

    asyncio.run(body())


def test_validation_sends_each_response_alone_with_ground_truth_and_function_arguments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def body() -> None:
        rollout = Rollout(monkeypatch, n=4)
        rollout.finish("v")
        await rollout.prompt("v", validate=True)
        assert sorted(request.response_ids for request in rollout.requests) == [[[0]], [[1]]]
        assert all(request.validate and request.ground_truth == "7" for request in rollout.requests)
        arguments = [request.function_arguments for request in rollout.requests]
        assert all(each["ground_truth"] == "7" and "num_turns" in each["extra_info"] for each in arguments)

    asyncio.run(body())


def test_a_prompt_with_its_own_number_of_responses_forms_a_group_of_that_size(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        rollout = Rollout(monkeypatch, n=4)
        rollout.finish("a")
        await asyncio.wait_for(rollout.prompt("a", __rollout_n__=2), timeout=5)
        assert [request.response_ids for request in rollout.requests] == [[[0], [1]]]

    asyncio.run(body())


def test_validation_has_no_extra_voters(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        rollout = Rollout(monkeypatch, n=2, vote_n=5)
        rollout.finish("v")
        await rollout.prompt("v", validate=True)
        assert len(rollout.requests) == 2

    asyncio.run(body())


def test_log_probabilities_of_sampled_tokens_are_sent_to_rewards_that_need_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def body() -> None:
        rollout = Rollout(monkeypatch, n=2)
        rollout.worker._reward = REWARDS["token_entropy"]
        rollout.finish("a")
        await rollout.prompt("a")
        assert [request.log_probs for request in rollout.requests] == [[[0.0], [-0.5]]]

    asyncio.run(body())
    with_tool = AgentLoopOutput(
        prompt_ids=[1],
        response_ids=[5, 6, 7],
        response_mask=[1, 0, 1],
        response_logprobs=[-0.25, 0.0, -0.75],
        metrics=AgentLoopMetrics(),
    )
    assert sampled_log_probs(with_tool) == [-0.25, -0.75]


@pytest.mark.parametrize("validate", [False, True])
@pytest.mark.parametrize("row", [{"choices": ["a", "b"]}, {"extra_info": {"choices": ["a", "b"]}}], ids=str)
def test_the_choices_of_a_row_are_sent_with_its_responses(
    monkeypatch: pytest.MonkeyPatch, row: dict[str, Any], validate: bool
) -> None:
    async def body() -> None:
        rollout = Rollout(monkeypatch, n=2)
        rollout.finish("a")
        await rollout.prompt("a", validate, **row)
        assert rollout.requests and all(request.choices == ["a", "b"] for request in rollout.requests)

    asyncio.run(body())


def test_responses_are_not_grouped_for_a_reward_manager_of_single_responses(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        rollout = Rollout(monkeypatch, n=2)
        rollout.worker._scores_groups = False
        stored: list[AgentLoopOutput] = []

        async def store(worker: Any, output: AgentLoopOutput, validate: bool, **kwargs: Any) -> None:
            stored.append(output)

        monkeypatch.setattr(_AgentLoopWorkerTQ, "_agent_loop_postprocess", store)
        rollout.finish("a")
        await rollout.prompt("a")
        assert rollout.requests == [] and [output.reward_score for output in stored] == [None, None]

    asyncio.run(body())
