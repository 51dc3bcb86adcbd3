"""veRL's agent loop worker with groups: what is sent to the reward workers, when, and what becomes of failures.

veRL's own `_run_prompt` runs as is; the model and the transfer queue are replaced by stand-ins.
"""

import asyncio
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from tensordict import TensorDict
from verl.experimental.agent_loop import AgentLoopOutput
from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics
from verl.trainer.ppo.v1 import agent_loop_tq

from verl_ext.rewards.group_request import AccuracyRequest, GroupAccuracy, GroupRequest, ResponseScore
from verl_ext.rollout import queue_rows
from verl_ext.rollout.agent_loop import GroupAgentLoopWorker, _AgentLoopWorkerTQ, sampled_log_probs
from verl_ext.rollout.queue_rows import VOTED_QUESTION
from verl_ext.votes import vote
from verl_ext.votes.vote_files import VotedQuestion
from verl_ext.votes.vote_record import VoteRecord


class RewardWorker:
    """Stands for the Ray actor: remembers requests and rewards a response with the size of its group."""

    def __init__(self) -> None:
        self.requests: list[GroupRequest] = []
        self.compute_score = self

    async def remote(self, request: GroupRequest) -> list[ResponseScore]:
        self.requests.append(request)
        size = len(request.response_ids)
        return [ResponseScore(float(size), {"size": size}) for _ in request.response_ids]


class Rollout:
    """A worker whose sessions answer with their own number, or fail, when their prompt's event is set."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, n: int, reward_workers: int = 3, vote_n: int | None = None
    ) -> None:
        self.tags: dict[str, dict[str, str]] = {}
        self.partitions: dict[str, str] = {}
        self.outputs: dict[tuple[str, int], AgentLoopOutput] = {}
        self.failing: set[tuple[str, int]] = set()
        self.may_finish: dict[str, asyncio.Event] = {}
        self.reward_workers = [RewardWorker() for _ in range(reward_workers)]
        self.worker = object.__new__(GroupAgentLoopWorker)
        self.worker.config = OmegaConf.create({"actor_rollout_ref": {"rollout": {"n": n, "val_kwargs": {"n": 2}}}})
        self.worker.reward_loop_worker_handles = self.reward_workers
        self.worker._scores_groups, self.worker._measures_accuracy = True, False
        self.worker._needs_log_probs, self.worker._needs_judgements = False, False
        self.worker._needs_questions = False
        self.worker._groups, self.worker._rows, self.worker._vote_n = {}, {}, vote_n
        self.worker._records_votes = False
        self.worker.processor, self.worker.distillation_enabled = None, False
        self.puts: list[list[str]] = []
        self.fields: dict[str, dict[str, Any]] = {}

        async def put(key: str, partition_id: str, tag: dict[str, str]) -> None:
            self.tags.setdefault(key, {}).update(tag)
            self.partitions[key] = partition_id

        async def run_agent_loop(worker: Any, sampling_params: Any, trajectory: Any, **kwargs: Any) -> None:
            session = kwargs["uid"], kwargs["session_id"]
            await self.may_finish.get(kwargs["uid"], asyncio.Event()).wait()
            if session in self.failing:
                raise RuntimeError("out of memory")
            output = AgentLoopOutput(
                prompt_ids=[1],
                response_ids=[session[1]],
                response_mask=[1],
                response_logprobs=[-0.5 * session[1]],
                metrics=AgentLoopMetrics(),
            )
            self.outputs[session] = output
            await worker._agent_loop_postprocess(output, trajectory["validate"], **kwargs)

        async def put_batch(keys: list[str], fields: TensorDict, tags: list[dict], partition_id: str) -> None:
            assert all((scores != 0).any() for scores in fields["rm_scores"]) and partition_id == "train"
            self.puts.append(keys)
            for number, key in enumerate(keys):
                self.fields[key] = {name: getattr(value, "data", value) for name, value in fields[number].items()}

        async def store(worker: Any, output: Any, validate: bool, **kwargs: Any) -> None:
            assert output.reward_score is not None

        monkeypatch.setattr(agent_loop_tq.tq, "async_kv_put", put)
        monkeypatch.setattr(agent_loop_tq.tq, "async_kv_batch_put", put_batch)
        monkeypatch.setattr(_AgentLoopWorkerTQ, "_run_agent_loop", run_agent_loop)
        monkeypatch.setattr(_AgentLoopWorkerTQ, "_agent_loop_postprocess", store)

    @property
    def status(self) -> dict[str, str]:
        return {uid: tag["status"] for uid, tag in self.tags.items()}

    @property
    def requests(self) -> list[GroupRequest]:
        return [request for worker in self.reward_workers for request in worker.requests]

    async def prompt(self, uid: str, validate: bool = False, **extra: Any) -> None:
        self.may_finish.setdefault(uid, asyncio.Event())
        prompt = {"uid": uid, "id": f"row {uid}", "agent_name": "fake", "reward_model": {"ground_truth": "7"}, **extra}
        prompt["global_steps"] = 1
        await self.worker._run_prompt(prompt, {}, trajectory={"validate": validate})

    def finish(self, *uids: str) -> None:
        for uid in uids:
            self.may_finish.setdefault(uid, asyncio.Event()).set()


def test_a_group_is_one_request_with_the_responses_of_all_its_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        rollout = Rollout(monkeypatch, n=4)
        rollout.finish("a")
        await rollout.prompt("a")
        assert rollout.requests == [GroupRequest([[0], [1], [2], [3]], validate=False, ground_truth=None)]
        assert rollout.status == {"a": "finished"}
        assert {output.reward_score for output in rollout.outputs.values()} == {4.0}
        assert rollout.outputs["a", 2].extra_fields["reward_extra_info"] == {"size": 4}
        assert rollout.worker._groups == {} and rollout.worker._rows == {}

    asyncio.run(body())


def test_the_rows_of_a_group_are_put_at_once_before_it_is_finished(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_rows_with_other_fields_are_put_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_transfer_queue_that_refuses_the_rows_fails_the_group(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        rollout = Rollout(monkeypatch, n=2)

        async def refuse(**row: Any) -> None:
            raise RuntimeError("no storage")

        monkeypatch.setattr(agent_loop_tq.tq, "async_kv_batch_put", refuse)
        rollout.finish("a")
        await asyncio.wait_for(rollout.prompt("a"), timeout=5)
        assert rollout.status == {"a": "failure"}

    asyncio.run(body())


def test_the_truth_of_a_training_row_is_sent_under_supervision_only(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_the_ground_truth_is_sent_once_the_rewards_are_final_and_changes_none(monkeypatch: pytest.MonkeyPatch) -> None:
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
        asked = GroupRequest([[0], [1], [2], [3]], validate=False, ground_truth=None, choices=["4", "5"])
        assert group == asked and "7" not in repr(group)
        answers, rewards = ["0", "1", "2", "3"], [1.0, 1.0, 0.0]
        assert accuracy == AccuracyRequest("row a", "7", answers, rewards, ["4", "5"], record)
        assert [rollout.outputs["a", session].reward_score for session in range(3)] == [1.0, 1.0, 0.0]
        assert rollout.outputs["a", 2].extra_fields["reward_extra_info"] == {"answer": "2", **completed.to_extra_info()}

    asyncio.run(body())


@pytest.mark.parametrize("failing", [set(), {0, 2}], ids=str)
def test_the_row_of_the_first_response_holds_its_whole_group_with_the_truth_that_the_vote_never_saw(
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
        assert [one.text for one in voted.responses] == [f"It is {'4' if s == 1 else '7'}." for s in sessions]
        assert [one.correct for one in voted.responses] == [session != 1 for session in sessions]
        agreed = len(sessions) > 2
        assert [one.reward for one in voted.responses] == [1.5 if agreed and s != 1 else 0.5 for s in sessions]
        assert [one.trained for one in voted.responses] == [number < 3 for number in range(len(sessions))]
        # Nothing that a trainer or a logger asks for has it.
        fields = {name: value for name, value in rollout.fields[f"a_{sessions[0]}_0"].items() if name != VOTED_QUESTION}
        assert "It is" not in repr(fields)

    asyncio.run(body())


def test_a_group_is_scored_while_another_still_generates(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_prompt_is_tagged_with_its_row_and_with_what_it_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_prompt_without_a_row_id_is_told_by_its_uid(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        rollout = Rollout(monkeypatch, n=2)
        rollout.finish("a")
        prompt = {"uid": "a", "agent_name": "fake", "global_steps": 1}
        await rollout.worker._run_prompt(prompt, {}, trajectory={"validate": False})
        assert rollout.tags["a"]["id"] == "a" and rollout.status == {"a": "finished"}

    asyncio.run(body())


@pytest.mark.parametrize("validate", [False, True])
def test_plain_rows_of_verl_get_an_id_that_their_responses_carry(
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


def test_rows_without_a_reward_model_are_trained_and_validated_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        rollout = Rollout(monkeypatch, n=2)
        rollout.finish("a", "v")
        await rollout.prompt("a", reward_model=None)
        await rollout.prompt("v", validate=True, reward_model=None)
        assert rollout.status == {"a": "finished", "v": "finished"}
        assert len(rollout.requests) == 3 and all(request.ground_truth is None for request in rollout.requests)

    asyncio.run(body())


def test_prompts_are_grouped_by_uid_even_where_their_text_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        rollout = Rollout(monkeypatch, n=3)
        rollout.finish("a", "b")
        await asyncio.gather(*(rollout.prompt(uid, raw_prompt=[{"role": "user", "content": "same"}]) for uid in "ab"))
        assert [len(request.response_ids) for request in rollout.requests] == [3, 3]

    asyncio.run(body())


def test_validation_sends_each_response_alone_with_its_truth_and_verls_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        rollout = Rollout(monkeypatch, n=4)
        rollout.finish("v")
        await rollout.prompt("v", validate=True)
        assert sorted(request.response_ids for request in rollout.requests) == [[[0]], [[1]]]
        assert all(request.validate and request.ground_truth == "7" for request in rollout.requests)

    asyncio.run(body())


def test_a_prompt_with_its_own_number_of_responses_forms_a_group_of_that_size(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        rollout = Rollout(monkeypatch, n=4)
        rollout.finish("a")
        await asyncio.wait_for(rollout.prompt("a", __rollout_n__=2), timeout=5)
        assert [request.response_ids for request in rollout.requests] == [[[0], [1]]]

    asyncio.run(body())


@pytest.mark.parametrize("failing", [set(), {1}, {0, 2, 4}, {0, 1, 2, 3}], ids=str)
def test_more_responses_vote_than_are_trained_on_which_are_the_first_that_survive(
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


def test_an_agent_loop_of_several_outputs_puts_those_of_the_trained_sessions_only(
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


def test_more_voters_are_a_matter_of_training_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        rollout = Rollout(monkeypatch, n=2, vote_n=5)
        rollout.finish("v")
        await rollout.prompt("v", validate=True)
        assert len(rollout.requests) == 2

    asyncio.run(body())


def test_log_probabilities_of_sampled_tokens_are_sent_to_managers_that_need_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def body() -> None:
        rollout = Rollout(monkeypatch, n=2)
        rollout.worker._needs_log_probs = True
        rollout.finish("a")
        await rollout.prompt("a")
        assert [request.log_probs for request in rollout.requests] == [[[0.0], [-0.5]]]

    asyncio.run(body())
    of_a_tool = AgentLoopOutput(
        prompt_ids=[1],
        response_ids=[5, 6, 7],
        response_mask=[1, 0, 1],
        response_logprobs=[-0.25, 0.0, -0.75],
        metrics=AgentLoopMetrics(),
    )
    assert sampled_log_probs(of_a_tool) == [-0.25, -0.75]


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


def test_a_reward_worker_that_dies_fails_the_group_instead_of_hanging_it(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_with_a_reward_manager_that_scores_single_responses_nothing_is_grouped(monkeypatch: pytest.MonkeyPatch) -> None:
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
