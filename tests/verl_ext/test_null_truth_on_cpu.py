"""Training never sees ground truths: correct, permuted and deleted ones give the same rewards."""

import asyncio
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tensordict import TensorDict
from verl.trainer.ppo.utils import create_rl_dataset
from verl.trainer.ppo.v1 import agent_loop_tq
from verl.workers.rollout.replica import TokenOutput

from mmupt.compose import load_recipe
from mmupt_data.figure_task import write_figures
from verl_ext.datasets.ground_truth import sidecar_of
from verl_ext.rollout.agent_loop import GroupAgentLoopWorker
from verl_ext.rollout.reward_manager import GroupRewardManager


class Server:
    """Stand-in for vLLM: two of three responses to a prompt agree, on an answer that depends on the prompt."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.requests = 0

    async def generate(self, prompt_ids: list[int], **request: Any) -> TokenOutput:
        self.requests += 1
        answer = sum(prompt_ids) % 7 + (self.requests % 3 == 0)
        tokens = self.tokenizer.encode(f"so \\boxed{{{answer}}}")
        return TokenOutput(token_ids=tokens, log_probs=[-1.0] * len(tokens), stop_reason="completed", extra_fields={})


class RewardWorker:
    """The real reward manager, without Ray around it."""

    def __init__(self, manager: GroupRewardManager) -> None:
        self.compute_score, self.manager = self, manager

    async def remote(self, request: Any) -> Any:
        return await self.manager.run_single(request)


def rewards(
    folder: Path, monkeypatch: pytest.MonkeyPatch, diagnoses: set[bool | None] | None = None
) -> dict[str, list[float]]:
    """Roll out every training row and return the rewards put into the transfer queue, by row id.

    `diagnoses` collects whether pseudo-labels are correct, None if unknown.
    """
    files = [f"data.train_files={folder}/train.parquet", f"data.val_files={folder}/validation.parquet"]
    config, _ = load_recipe("mmupt_tiny", [*files, "actor_rollout_ref.rollout.n=3"])
    rewards_by_id: dict[str, list[float]] = {}

    async def put(**_: Any) -> None:
        return None

    async def put_batch(keys: list[str], fields: TensorDict, **_: Any) -> None:
        assert [reward_model["ground_truth"] for reward_model in fields["reward_model"]] == [None] * len(keys)
        if diagnoses is not None:
            diagnoses.update(extra["reward_extra_info"]["vote"]["label_correct"] for extra in fields["extra_fields"])
        for id_, scores in zip(fields["id"], fields["rm_scores"].unbind(), strict=True):
            rewards_by_id.setdefault(id_, []).append(float(scores.sum()))

    monkeypatch.setattr(agent_loop_tq.tq, "init", lambda: None)
    monkeypatch.setattr(agent_loop_tq.tq, "async_kv_put", put)
    monkeypatch.setattr(agent_loop_tq.tq, "async_kv_batch_put", put_batch)

    async def body() -> None:
        worker = GroupAgentLoopWorker(config, None, None, [])
        worker.llm_client = Server(worker.tokenizer)
        manager = GroupRewardManager(config, worker.tokenizer, compute_score=None)
        worker.reward_loop_worker_handles = [RewardWorker(manager)]
        dataset = create_rl_dataset(config.data.train_files, config.data, worker.tokenizer, worker.processor)
        for number in range(len(dataset)):
            row = {name: value for name, value in dataset[number].items() if name != "dummy_tensor"}
            row |= {"uid": f"u{number}", "agent_name": "shared_prompt_agent", "global_steps": 1}
            await worker._run_prompt(row, {}, {"step": 1, "sample_index": 0, "rollout_n": 0, "validate": False})

    asyncio.run(body())
    return rewards_by_id


def test_rewards_are_the_same_with_the_ground_truth_correct_permuted_and_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_figures(tmp_path, train=6, validation=3, test=3)
    train = tmp_path / "train.parquet"
    truth = pq.read_table(sidecar_of(train)).to_pydict()
    known: set[bool | None] = set()
    right = rewards(tmp_path, monkeypatch, known)
    assert known <= {True, False} and known
    pq.write_table(pa.table({"id": truth["id"], "answer": truth["answer"][::-1]}), sidecar_of(train))
    permuted = rewards(tmp_path, monkeypatch)
    sidecar_of(train).unlink()
    unknown: set[bool | None] = set()
    assert right == permuted == rewards(tmp_path, monkeypatch, unknown) and unknown == {None}
    assert len(right) == 6 and all(sorted(group) == [0.0, 1.0, 1.0] for group in right.values())
