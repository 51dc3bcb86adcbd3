"""Under veRL's asynchronous trainers the vote sees complete groups only; stale, failed and filtered ones are replaced.

veRL's ReplayBufferAsync and our additions are real; the queue is a dict.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from verl.trainer.ppo.v1 import replay_buffer as verl_buffer
from verl.trainer.ppo.v1.replay_buffer import ReplayBufferAsync

from mmupt.compose import load_recipe
from verl_ext.collapse import History
from verl_ext.rollout import replay_buffer
from verl_ext.rollout.replay_buffer import VoteReplayBuffer
from verl_ext.votes import vote
from verl_ext.votes.vote_record import VoteRecord

N = 3


class Queue:
    """The part of TransferQueue that a replay buffer calls; tests fill it like agent loop workers."""

    def __init__(self) -> None:
        self.tags: dict[str, dict[str, dict]] = {"train": {}}
        self.rewards: dict[str, float] = {}

    def kv_list(self) -> dict[str, dict[str, dict]]:
        return {partition: dict(tags) for partition, tags in self.tags.items()}

    def kv_clear(self, keys: list[str], partition_id: str) -> None:
        for key in keys:
            self.tags[partition_id].pop(key, None)

    def kv_batch_get(self, keys: list[str], partition_id: str, select_fields: list[str]) -> dict[str, list[Any]]:
        info = VoteRecord(vote(["7", "3"]), 0.1).to_extra_info()
        fields = {
            "rm_scores": [torch.tensor([0.0, self.rewards[key]]) for key in keys],
            "extra_fields": [{"reward_extra_info": info} for _ in keys],
            "id": [f"row {key}" for key in keys],
            "voted_question": ["" for _ in keys],
        }
        return {name: fields[name] for name in select_fields}

    def submit(self, uid: str, step: int) -> None:
        self.tags["train"][uid] = {"is_prompt": True, "status": "running", "global_steps": step}

    def finish(self, uid: str, *rewards: float, status: str = "finished", policies: tuple[int, int] = (0, 0)) -> None:
        """End a group with a row per reward, the first and the last sampled by the versions `policies`."""
        self.tags["train"][uid]["status"] = status
        for session, reward in enumerate(rewards):
            versions = {"min_global_steps": policies[0], "max_global_steps": policies[bool(session)]}
            self.tags["train"][f"{uid}_{session}_0"] = {"status": "success", **versions}
            self.rewards[f"{uid}_{session}_0"] = reward

    def add(self, uid: str, step: int, *rewards: float, **more: Any) -> None:
        self.submit(uid, step)
        self.finish(uid, *rewards, **more)


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    queue = Queue()
    for module in (verl_buffer, replay_buffer):
        monkeypatch.setattr(module, "tq", queue)
    # Outside `fit` nothing would end the watchdog's thread.
    monkeypatch.setattr(replay_buffer.Watchdog, "start", lambda self: None)
    return queue


def buffer(folder: Path, refill: Any, *overrides: str, **arguments: Any) -> VoteReplayBuffer:
    settings = [f"mmupt.run_folder={folder}", "data.train_files=null", f"actor_rollout_ref.rollout.n={N}", *overrides]
    sampler = load_recipe("mmupt_tiny", ["+async=colocate", *settings])[0].trainer.v1.sampler
    OmegaConf.resolve(sampler)
    defaults = {
        "trainer_mode": "colocate_async",
        "trainer_config": OmegaConf.create({}),
        "max_off_policy_threshold": sampler.max_off_policy_threshold,
        "max_off_policy_strategy": sampler.max_off_policy_strategy,
        "sampler_kwargs": sampler.sampler_kwargs,
        "refill_fn": refill,
    }
    return VoteReplayBuffer(**defaults | arguments)


def no_refill(count: int) -> None:
    raise AssertionError(f"{count} prompts were requested")


def uids(keys: list[str]) -> list[str]:
    """Return the groups of a batch, which must be complete."""
    groups = [key.split("_")[0] for key in keys]
    assert all(groups.count(uid) == N for uid in groups)
    return list(dict.fromkeys(groups))


@pytest.mark.parametrize("mode", ["colocate_async", "separate_async"])
def test_asynchronous_trainers_get_verls_asynchronous_buffer(queue: Queue, tmp_path: Path, mode: str) -> None:
    asynchronous = buffer(tmp_path, no_refill, trainer_mode=mode)
    # `separate_async` requires this method of a custom sampler before it lends GPUs.
    assert isinstance(asynchronous, ReplayBufferAsync) and hasattr(asynchronous, "wait_for_sampleable")
    assert not isinstance(buffer(tmp_path, no_refill, trainer_mode="sync"), ReplayBufferAsync)


def test_a_stale_group_is_removed_as_a_whole_and_replaced(queue: Queue, tmp_path: Path) -> None:
    queue.add("old", 1, 1.0, 1.0, 0.0)
    queue.add("fresh", 3, 1.0, 0.0, 0.0, policies=(1, 2))

    def refill(count: int) -> None:
        assert count == 1 and not any(key.startswith("old") for key in queue.tags["train"])
        queue.add("other", 3, 1.0, 0.0, 1.0, policies=(2, 2))

    batch, metrics = buffer(tmp_path, refill, max_off_policy_strategy="drop").sample(3, "train", 2)
    assert set(uids(batch.keys)) == {"fresh", "other"}
    assert metrics["training/off_policy/evicted_samples"] == 1
    assert metrics["vote/policy_versions"] == 1.5 and metrics["vote/majority_ratio"] == 0.5


def test_by_default_training_waits_for_the_oldest_groups(
    queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue.submit("slow", 2)
    for uid in ("fast1", "fast2"):
        queue.add(uid, 3, 1.0, 0.0, 0.0)
    monkeypatch.setattr(verl_buffer.time, "sleep", lambda seconds: queue.finish("slow", 1.0, 0.0, 1.0))
    batch, _ = buffer(tmp_path, no_refill).sample(3, "train", 2)
    assert len(uids(batch.keys)) == 2 and "slow" in uids(batch.keys)


def test_failed_and_uninformative_groups_are_replaced(queue: Queue, tmp_path: Path) -> None:
    queue.add("failed", 1, 1.0, 0.0, status="failure")
    queue.add("equal", 1, 1.0, 1.0, 1.0)
    queue.add("good", 1, 1.0, 0.0, 0.0)

    def refill(count: int) -> None:
        for number in range(count):
            queue.add(f"other{number}", 1, 0.0, 1.0, 1.0)

    filters = "algorithm.filter_groups.enable=True"
    batch, metrics = buffer(tmp_path, refill, filters).sample(1, "train", 3)
    assert set(uids(batch.keys)) == {"good", "other0", "other1"}
    assert metrics["training/rollout_failure/evicted_samples"] == 1
    assert metrics["training/filter_groups/evicted_samples"] == 1
    assert metrics["vote/zero_advantage_rate"] == 0


@pytest.mark.parametrize("mode", ["sync", "colocate_async"])
def test_a_run_ends_if_every_group_fails(queue: Queue, tmp_path: Path, mode: str) -> None:
    requested: list[int] = []

    def refill(count: int) -> None:
        requested.append(count)
        for number in range(count):
            queue.add(f"refill{len(requested)}.{number}", 1, status="failure")

    queue.add("first", 1, status="failure")
    refills_failed = "trainer.v1.sampler.sync_refill_failed_groups=True"
    with pytest.raises(RuntimeError, match=r"9 groups have failed in a row, more than a step has prompts"):
        buffer(tmp_path, refill, refills_failed, "data.train_batch_size=8", trainer_mode=mode).sample(1, "train", 4)
    assert sum(requested) == 8


def test_the_majority_ratio_of_a_step_is_the_mean_over_its_updates(queue: Queue, tmp_path: Path) -> None:
    votes = buffer(tmp_path, no_refill)
    for step, uid in ((1, "a"), (1, "b"), (2, "c")):
        queue.add(uid, step, 1.0, 0.0, 0.0)
        batch, _ = votes.sample(step, "train", 1)
        queue.kv_clear(batch.keys, "train")
    ratios = iter((0.25, 0.75))
    original = replay_buffer.vote_metrics
    try:
        replay_buffer.vote_metrics = lambda groups, expected: {"vote/majority_ratio": next(ratios)}
        for uid in ("d", "e"):
            queue.add(uid, 3, 1.0, 0.0, 0.0)
            votes.sample(3, "train", 1)
    finally:
        replay_buffer.vote_metrics = original
    assert History(tmp_path / "history.jsonl").majority_ratios == {1: 0.5, 2: 0.5, 3: 0.5}


def test_rows_trained_on_before_a_restart_are_removed(queue: Queue, tmp_path: Path) -> None:
    queue.add("trained", 1, 1.0, 0.0, 0.0)
    # Sampling removed the entry of the prompt, and the checkpoint came before the end of the step.
    del queue.tags["train"]["trained"]
    queue.add("waiting", 1, 1.0, 0.0, 0.0)
    queue.submit("running", 2)
    queue.add("next", 2, 1.0, 0.0, 1.0)
    votes = buffer(tmp_path, no_refill, max_off_policy_threshold=None)
    assert uids(votes.sample(2, "train", 1)[0].keys) == ["waiting"]
    assert {key.split("_")[0] for key in queue.tags["train"]} == {"waiting", "running", "next"}
    # Rows of an unfinished update stay.
    assert uids(votes.sample(2, "train", 1)[0].keys) == ["next"]
    assert {key.split("_")[0] for key in queue.tags["train"]} == {"waiting", "running", "next"}
