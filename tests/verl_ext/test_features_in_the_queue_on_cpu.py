"""Image features leave veRL's transfer queue together with the rows of their prompt.

veRL's ReplayBuffer and queue are real; the tests put what the agent loop worker would put.
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import ray
import torch
import transfer_queue as tq
from omegaconf import OmegaConf
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

from verl_ext.rollout.queue_rows import QueueRow, put
from verl_ext.rollout.shared_features import PARTITION, SharedFeatures, store

pytestmark = pytest.mark.full_stack

FEATURES = {"pixel_values": torch.zeros(64, 12), "image_grid_thw": torch.tensor([[1, 8, 8]])}


@pytest.fixture(scope="module")
def queue() -> Iterator[None]:
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    tq.init(OmegaConf.create({"backend": {"SimpleStorage": {"num_data_storage_units": 1}}}))
    yield
    tq.close()
    ray.shutdown()


@pytest.fixture(autouse=True)
def is_empty(queue: None) -> Iterator[None]:
    yield
    assert queued() == (0, 0)


def queued() -> tuple[int, int]:
    """Return the numbers of response rows and of prompts with features in the queue."""
    tags = tq.kv_list() or {}
    rows = sum("_" in key for partition in ("train", "val") for key in tags.get(partition, {}))
    return rows, len(tags.get(PARTITION, {}))


def submit(*uids: str, partition_id: str = "train") -> None:
    """Put what the trainer puts for new prompts."""
    tags = [{"is_prompt": True, "status": "running", "global_steps": 1} for _ in uids]
    tq.kv_batch_put(keys=list(uids), partition_id=partition_id, tags=tags)


def finish(uid: str, *rewards: float, status: str = "finished") -> None:
    """Put what the agent loop worker puts for a training prompt whose responses got these rewards."""

    async def body() -> None:
        await store(uid, FEATURES)
        rows = [row(f"{uid}_{session}_0", reward) for session, reward in enumerate(rewards)]
        await put(rows)
        await tq.async_kv_put(key=uid, partition_id="train", tag={"status": status})

    asyncio.run(body())


def row(key: str, reward: float) -> QueueRow:
    fields = {"rm_scores": torch.tensor([0.0, reward]), "multi_modal_inputs": SharedFeatures(key.split("_")[0])}
    return QueueRow(key, fields, {"status": "success"})


def buffer(refill: Callable[[int], Any] | None = None, **settings: Any) -> ReplayBuffer:
    return ReplayBuffer(
        trainer_mode="sync",
        trainer_config=OmegaConf.create({}),
        max_off_policy_threshold=8,
        max_off_policy_strategy="drop",
        sampler_kwargs=OmegaConf.create({}),
        poll_interval=0.01,
        refill_fn=refill,
        gen_batch_size=1,
        **settings,
    )


def end_step(batch: tq.KVBatchMeta) -> None:
    """Clear the batch as `PPOTrainer.fit` does at the end of a step."""
    tq.kv_clear(keys=batch.keys, partition_id=batch.partition_id)


def test_features_stay_until_the_end_of_their_step() -> None:
    for step in range(3):
        submit(f"a{step}", f"b{step}")
        finish(f"a{step}", 1.0, 0.0)
        finish(f"b{step}", 1.0, 0.0)
        batch, _ = buffer().sample(global_steps=step, partition_id="train", batch_size=2)
        assert queued() == (4, 2)
        end_step(batch)
        assert queued() == (0, 0)


def test_features_of_filtered_and_discarded_groups_are_removed() -> None:
    seen: list[tuple[int, int]] = []

    def refill(count: int) -> None:
        seen.append(queued())
        uids = [f"refill{len(seen)}{number}" for number in range(count)]
        submit(*uids)
        for uid in uids:
            finish(uid, 1.0, 0.0)

    submit("equal1", "equal2", "kept")
    finish("equal1", 1.0, 1.0)
    finish("equal2", 0.0, 0.0)
    finish("kept", 1.0, 0.0)
    filtering = buffer(refill, filter_groups_metric="reward", train_batch_size=4, max_inflight_gen_batches=1)
    batch, metrics = filtering.sample(global_steps=1, partition_id="train", batch_size=3)
    assert metrics["training/filter_groups/evicted_samples"] == 2
    assert metrics["training/filter_groups/discarded_surplus_samples"] == 2
    assert seen == [(2, 1)] and queued() == (6, 3)
    end_step(batch)


def test_features_of_a_failed_group_are_removed_when_it_is_sampled_or_replaced() -> None:
    submit("failed", "good")
    finish("failed", status="failure")
    finish("good", 1.0, 0.0)
    batch, _ = buffer().sample(global_steps=1, partition_id="train", batch_size=2)
    assert queued() == (2, 1)
    end_step(batch)

    def refill(count: int) -> None:
        assert count == 1 and queued() == (2, 1)
        submit("other")
        finish("other", 1.0, 0.0)

    submit("failed", "good")
    finish("failed", status="failure")
    finish("good", 1.0, 0.0)
    replacing = buffer(refill, sync_refill_failed_groups=True)
    batch, _ = replacing.sample(global_steps=1, partition_id="train", batch_size=2)
    assert queued() == (4, 2)
    end_step(batch)


def test_validation_and_the_end_of_a_step_keep_features_of_prompts_in_flight() -> None:
    submit("next")
    finish("next", 1.0, 0.0, status="running")
    submit("v", partition_id="val")
    tq.kv_put(key="v_0_0", partition_id="val", fields={"rm_scores": torch.ones(2)}, tag={"status": "success"})
    tq.kv_put(key="v", partition_id="val", tag={"status": "finished"})
    batch, _ = buffer().sample(global_steps=1, partition_id="val", batch_size=1)
    end_step(batch)
    assert queued() == (2, 1)
    tq.kv_put(key="next", partition_id="train", tag={"status": "finished"})
    batch, _ = buffer().sample(global_steps=1, partition_id="train", batch_size=1)
    features = SharedFeatures("next")
    assert torch.equal(features.get("image_grid_thw"), FEATURES["image_grid_thw"])
    end_step(batch)
