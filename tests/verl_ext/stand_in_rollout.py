"""veRL's agent loop worker with groups, around stand-ins for the model, the reward workers and the transfer queue.

veRL's own `_run_prompt` runs as is.
"""

import asyncio
from typing import Any

import pytest
from omegaconf import OmegaConf
from tensordict import TensorDict
from verl.experimental.agent_loop import AgentLoopOutput
from verl.experimental.agent_loop.agent_loop import AgentLoopMetrics
from verl.trainer.ppo.v1 import agent_loop_tq

from verl_ext.rewards.group_request import GroupRequest, ResponseScore
from verl_ext.rewards.group_reward import GroupReward
from verl_ext.rollout.agent_loop import GroupAgentLoopWorker, _AgentLoopWorkerTQ


class RewardWorker:
    """Stand-in for the Ray actor: records requests and rewards a response with the size of its group."""

    def __init__(self) -> None:
        self.requests: list[GroupRequest] = []
        self.answer: str | None = "7"
        self.compute_score = self

    async def remote(self, request: GroupRequest) -> list[ResponseScore]:
        self.requests.append(request)
        size = len(request.response_ids)
        return [ResponseScore(float(size), {"answer": self.answer}) for _ in request.response_ids]


class Rollout:
    """A worker whose sessions respond with their number, or fail, once their prompt's event is set."""

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
        self.worker._reward = GroupReward  # type: ignore[type-abstract]
        self.worker._groups, self.worker._rows, self.worker._vote_n = {}, {}, vote_n
        self.worker._records_votes, self.worker._without_answer = False, 0
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
