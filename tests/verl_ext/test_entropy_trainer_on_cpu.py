"""The trainer mode `sync_entropy` replaces rewards by minus the exact entropy of tokens before the advantages."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from tensordict import TensorDict
from verl.trainer.ppo.v1 import get_trainer_cls
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from verl_ext import entropy_trainer
from verl_ext.config_checks import problems_of_config
from verl_ext.entropy_trainer import EntropyTrainer, entropy_rewards


def test_verl_finds_the_mode_once_the_plugin_is_loaded() -> None:
    assert get_trainer_cls("sync_entropy") is EntropyTrainer


def test_a_reward_is_minus_the_mean_entropy_of_the_sampled_tokens_at_the_last_one() -> None:
    entropy = torch.tensor([[1.0, 3.0, 9.0, 9.0], [0.5, 7.0, 1.5, 9.0], [2.0, 2.0, 2.0, 2.0]])
    # The second token of the second response is that of a tool.
    mask = torch.tensor([[1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]])
    assert entropy_rewards(entropy, mask).tolist() == [[0, -2, 0, 0], [0, 0, -1, 0], [0, 0, 0, 0]]


def test_the_rewards_in_the_queue_are_replaced_before_the_advantages(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {
        "entropy": torch.nested.as_nested_tensor([torch.tensor([1.0, 3.0]), torch.tensor([5.0])], layout=torch.jagged),
        "response_mask": torch.nested.as_nested_tensor([torch.tensor([1, 1]), torch.tensor([1])], layout=torch.jagged),
    }
    put: list[TensorDict] = []
    queue = SimpleNamespace(
        kv_batch_get=lambda select_fields, **_: {name: rows[name] for name in select_fields},
        kv_batch_put=lambda fields, **_: put.append(fields),
    )
    batch: Any = type("Batch", (), {"keys": ["a_0_0", "a_1_0"], "partition_id": "train", "__len__": lambda self: 2})()
    monkeypatch.setattr(entropy_trainer, "tq", queue)
    monkeypatch.setattr(PPOTrainerSync, "_compute_advantage", lambda self, batch, metrics: (put[0], batch))
    trainer = object.__new__(EntropyTrainer)
    fields, passed = trainer._compute_advantage(batch, {})
    assert passed is batch
    assert [row.tolist() for row in fields["rm_scores"].unbind()] == [[0.0, -2.0], [-5.0]]


@pytest.mark.parametrize(
    ("key", "value", "fix"),
    [
        ("reward.reward_manager.name", "majority_vote", "set reward.reward_manager.name=entropy"),
        ("algorithm.rollout_correction.bypass_mode", True, "set algorithm.rollout_correction.bypass_mode=False"),
    ],
)
def test_what_the_mode_needs_is_said_before_anything_starts(key: str, value: Any, fix: str) -> None:
    config = OmegaConf.create(
        {
            "reward": {"reward_manager": {"name": "entropy"}, "custom_reward_function": {"path": None}},
            "algorithm": {"rollout_correction": {"bypass_mode": False}},
            "trainer": {"v1": {"trainer_mode": "sync_entropy"}},
        }
    )
    assert not any("sync_entropy" in problem for problem in problems_of_config(config))
    OmegaConf.update(config, key, value)
    (problem,) = [problem for problem in problems_of_config(config) if "sync_entropy" in problem]
    assert fix in problem
