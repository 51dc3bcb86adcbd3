"""The replay buffer adds the vote's metrics to the step and leaves sampling to veRL."""

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1 import get_trainer_cls
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.utils.debug import marked_timer

from mmupt.compose import load_recipe
from mmupt.recipe_files import CONFIG_FOLDER
from verl_ext.collapse import History, StoppedOnCollapse
from verl_ext.config_defaults import SAMPLER_DEFAULTS
from verl_ext.rollout import replay_buffer
from verl_ext.rollout.replay_buffer import VoteReplayBuffer
from verl_ext.votes import VoteOptions, vote
from verl_ext.votes.vote_files import VotedQuestion, VotedResponse, read_votes
from verl_ext.votes.vote_record import VoteRecord

VOTED = {
    uid: VotedQuestion(f"q{uid[1]}", "Find x.", 0, None, None, [VotedResponse("7", "7", 1.0, True, None)] * 4).to_json()
    for uid in ("u1", "u2")
}


def settings(*overrides: str) -> DictConfig:
    # The recipe's data set may be missing.
    sampler = load_recipe("mmupt_tiny", ["data.train_files=null", *overrides])[0].trainer.v1.sampler
    OmegaConf.resolve(sampler)
    return sampler.sampler_kwargs


def build(sampler_kwargs: DictConfig) -> VoteReplayBuffer:
    """As `PPOTrainer._build_replay_buffer` builds a custom sampler."""
    return VoteReplayBuffer(
        trainer_mode="sync",
        trainer_config=OmegaConf.create({}),
        max_off_policy_threshold=8,
        max_off_policy_strategy="drop",
        sampler_kwargs=sampler_kwargs,
        refill_fn=lambda count: count,
    )


def test_without_filters_the_buffer_equals_verls_with_a_shorter_poll_interval() -> None:
    buffer = build(settings())
    assert buffer.filter_groups_metric is None and not buffer.sync_refill_failed_groups
    assert (buffer.poll_interval, buffer.train_batch_size, buffer.gen_batch_size) == (0.05, 32, 32)
    unfiltered = settings()
    unfiltered.filter_groups = None
    assert build(unfiltered).filter_groups_metric is None


def test_options_of_other_reward_managers_are_not_read_as_vote_options() -> None:
    penalty = "+reward.reward_kwargs.overlong_buffer_cfg={enable: True, len: 16}"
    assert build(settings("reward.reward_manager.name=dapo", penalty))._voters == 8


def test_verls_group_filter_and_refill_reach_the_buffer() -> None:
    filters = ("algorithm.filter_groups.enable=True", "algorithm.filter_groups.max_inflight_gen_batches=3")
    buffer = build(settings(*filters, "trainer.v1.sampler.sync_refill_failed_groups=True"))
    assert buffer.filter_groups_metric == "reward" and buffer.max_inflight_gen_batches == 3
    assert buffer.sync_refill_failed_groups and buffer.gen_batch_size == 1


@pytest.mark.parametrize("options", [(), ("+async=colocate",), ("+async=separate_cpu",)], ids=str)
def test_every_phase_timed_by_verls_trainer_counts_as_progress(options: tuple[str, ...]) -> None:
    config = load_recipe("mmupt_tiny", ["data.train_files=null", *options])[0]
    trainer_class = get_trainer_cls(config.trainer.v1.trainer_mode)
    trainer = trainer_class.__new__(trainer_class)
    trainer.config, trainer.trainer_mode = config, config.trainer.v1.trainer_mode
    finished = trainer._build_replay_buffer()._watchdog._finished
    seen = [finished()]
    for _ in range(2):
        trainer.timing_raw = {}
        for phase in ("gen", "update_actor", "update_actor"):
            with marked_timer(phase, trainer.timing_raw):
                pass
            seen.append(finished())
    assert seen[0] == [] and [name for name, _ in seen[3]] == ["gen", "update_actor"]
    assert all(before != after for before, after in pairwise(seen))


def test_the_queues_controller_is_watched_but_not_the_actors_of_other_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    actors = [("mine", "reward_loop_worker_0"), ("transfer_queue", "TransferQueueController"), ("other", "server")]
    monkeypatch.setattr(replay_buffer.ray, "get_runtime_context", lambda: SimpleNamespace(namespace="mine"))
    monkeypatch.setattr(
        replay_buffer.ray.util,
        "list_named_actors",
        lambda all_namespaces: [{"namespace": namespace, "name": name} for namespace, name in actors],
    )
    watched = build(settings())._watchdog._list_actors()
    assert watched == {"reward_loop_worker_0", "TransferQueueController"}


def test_missing_keys_are_named() -> None:
    with pytest.raises(ValueError, match=r"lacks checkpoints, .*train_files, votes, votes_per_step, watchdog"):
        build(OmegaConf.create({"n": 4}))


def test_defaults_of_the_sampler_equal_those_of_the_recipes() -> None:
    declared = OmegaConf.load(CONFIG_FOLDER / "base.yaml").trainer.v1.sampler.sampler_kwargs
    for name in ("watchdog_seconds", "poll_interval"):
        assert declared[name] == SAMPLER_DEFAULTS[name]
    assert OmegaConf.load(CONFIG_FOLDER / "base.yaml").mmupt.votes_per_step == SAMPLER_DEFAULTS["votes_per_step"]
    assert declared.keys() <= SAMPLER_DEFAULTS.keys()


@pytest.mark.parametrize("measured", [True, False])
def test_a_training_sample_reports_vote_metrics_and_accuracy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measured: bool
) -> None:
    accuracies = {
        "u1": {"label_correct": True, "reward_accuracy": 1.0},
        "u2": {"label_correct": False, "reward_accuracy": 0.0},
    }
    result = vote(["7", "7", "3", None], VoteOptions(count_no_answer=False))
    answers = {"u1": ["7", "7", "3"], "u2": ["4", "4"]}
    rewards = {"u1": [1.0, 1.0, 0.0], "u2": [1.0, 1.0]}
    keys = [f"{uid}_{session}_0" for uid, group in answers.items() for session in range(len(group))]

    def get(keys: list[str], partition_id: str, select_fields: list[str]) -> dict[str, list[Any]]:
        rows = [(key.split("_")[0], int(key.split("_")[1])) for key in keys]
        if select_fields != ["rm_scores", "extra_fields"]:
            assert keys == ["u1_0_0", "u2_0_0"]
            return {"id": ["q1", "q2"]} if select_fields == ["id"] else {"voted_question": [VOTED["u1"], VOTED["u2"]]}
        infos = {
            uid: VoteRecord(result, 0.5, **(accuracies[uid] if measured else {})).to_extra_info() for uid in answers
        }
        return {
            "rm_scores": [torch.tensor([0.0, rewards[uid][session]]) for uid, session in rows],
            "extra_fields": [
                {"reward_extra_info": {"answer": answers[uid][session], **infos[uid]}} for uid, session in rows
            ],
        }

    policies = {"min_global_steps": 0, "max_global_steps": 1}
    batch = KVBatchMeta(partition_id="train", keys=keys, tags=[policies for _ in keys])
    monkeypatch.setattr(ReplayBuffer, "sample", lambda self, **_: (batch, {"training/x": 1}))
    monkeypatch.setattr(replay_buffer.tq, "kv_batch_get", get)
    overrides = (
        "actor_rollout_ref.rollout.n=3",
        "reward.reward_kwargs.vote.vote_n=5",
        f"mmupt.run_folder={tmp_path}",
    )
    buffer = build(settings(*overrides))
    sampled, metrics = buffer.sample(global_steps=1, partition_id="train", batch_size=2)
    assert sampled is batch and metrics["training/x"] == 1
    assert metrics["vote/failed_responses"] == 2 * 5 - 2 * 4
    assert metrics["vote/no_answer_rate"] == 0.25
    assert metrics.get("vote/label_accuracy") == (0.5 if measured else None)
    assert metrics.get("vote/reward_accuracy") == (pytest.approx(3 / 5) if measured else None)
    assert metrics["vote/zero_advantage_rate"] == 0.5
    assert metrics["vote/scoring_seconds"] == 1.0
    assert History(tmp_path / "history.jsonl").majority_ratios == {1: pytest.approx(2 / 3)}
    buffer._votes.flush()
    stored = read_votes(tmp_path / "votes" / "1.parquet")
    assert [row["id"] for row in stored] == ["q1", "q2"] and {row["majority_ratio"] for row in stored} == {2 / 3}
    assert {(row["first_policy"], row["last_policy"]) for row in stored} == {(0, 1)}
    assert [row["label_correct"] for row in stored] == ([True, False] if measured else [None, None])


def test_no_vote_metrics_are_reported_without_votes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = KVBatchMeta(partition_id="train", keys=["u1_0_0", "u1_1_0"], tags=[{}, {}])
    monkeypatch.setattr(ReplayBuffer, "sample", lambda self, **_: (batch, {"training/x": 1}))
    scored = {"rm_scores": torch.tensor([[1.0], [0.0]]), "extra_fields": [{"reward_extra_info": {"acc": 1.0}}] * 2}
    monkeypatch.setattr(replay_buffer.tq, "kv_batch_get", lambda **_: scored)
    buffer = build(settings(f"mmupt.run_folder={tmp_path}"))
    assert buffer.sample(global_steps=1, partition_id="train", batch_size=1) == (batch, {"training/x": 1})


def test_validations_are_recorded_by_question_and_a_collapse_ends_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # u3 failed, u2 has one response left, and u1 has two, one of them with two outputs.
    right = {"u1_0_0": 1.0, "u1_0_1": 1.0, "u1_1_0": 0.0, "u2_1_0": 1.0}
    batch = KVBatchMeta(partition_id="val", keys=list(right), tags=[{} for _ in right])

    def get(keys: list[str], partition_id: str, select_fields: list[str]) -> dict[str, list[Any]]:
        assert partition_id == "val" and select_fields == ["id", "extra_fields"]
        infos = [{"reward_extra_info": {"acc": right[key], "answer": "7"}} for key in keys]
        return {"id": [{"u1": "q1", "u2": "q2"}[key.split("_")[0]] for key in keys], "extra_fields": infos}

    monkeypatch.setattr(ReplayBuffer, "sample", lambda self, **_: (batch, {"val/x": 1}))
    monkeypatch.setattr(replay_buffer.tq, "kv_batch_get", get)
    buffer = build(settings(f"mmupt.run_folder={tmp_path}"))
    assert buffer.sample(global_steps=5, partition_id="val", batch_size=3) == (batch, {"val/x": 1})
    # Another agent loop manager may leave rows without an id, and another reward manager without `acc`.
    monkeypatch.setattr(replay_buffer.tq, "kv_batch_get", lambda **_: {"extra_fields": [{}] * 3})
    buffer.sample(global_steps=5, partition_id="val", batch_size=3)
    history = History(tmp_path / "history.jsonl")
    assert history.validations == {5: {"q1": [1.0, 0.0], "q2": [1.0]}}

    for step in range(1, 11):
        history.add_majority_ratio(step, step / 10)
    for step, value in ((1, 1.0), (8, 0.0), (9, 0.0), (10, 0.0)):
        history.add_validation(step, {f"q{number}": [value] for number in range(9)})
    buffer = build(settings(f"mmupt.run_folder={tmp_path}"))
    with pytest.raises(StoppedOnCollapse, match=r"from 100\.0 % at step 1 to 0\.0 % at step 10"):
        buffer.sample(global_steps=11, partition_id="train", batch_size=3)


def test_pending_prompts_are_described_by_row_id_and_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    def prompt(number: int, status: str, **tag: str) -> dict[str, Any]:
        return {"is_prompt": True, "status": status, "id": f"q{number}", **tag}

    tags = {f"u{number}": prompt(number, "running", phase="generation") for number in range(7)}
    tags |= {"u7": prompt(7, "running", phase="reward worker 2"), "u8": prompt(8, "finished", phase="generation")}
    tags |= {"u9": {"is_prompt": True, "status": "pending"}, "u7_0_0": {"status": "success"}}
    monkeypatch.setattr(replay_buffer.tq, "kv_list", lambda: {"train": tags})
    assert replay_buffer._pending_prompts() == (
        "1 prompt waits for an agent loop worker: ?; 7 prompts wait for generation: q0, q1, q2, q3, q4, ...; "
        "1 prompt waits for reward worker 2: q7"
    )
    monkeypatch.setattr(replay_buffer.tq, "kv_list", lambda: {})
    assert replay_buffer._pending_prompts() == "no prompt is pending, the trainer itself waits"
