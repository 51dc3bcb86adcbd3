"""The trainer mode `sync_confidence` replaces rewards with rewards from logits before computing advantages."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from tensordict import TensorDict
from verl.trainer.ppo.v1 import get_trainer_cls
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from verl_ext import confidence_trainer
from verl_ext.confidence_trainer import ConfidenceTrainer, confidence_rewards
from verl_ext.config_checks import problems_of_config


def nested(*rows: list[float]) -> torch.Tensor:
    return torch.nested.as_nested_tensor([torch.tensor(row) for row in rows], layout=torch.jagged)


class Batch(SimpleNamespace):
    def __len__(self) -> int:
        return len(self.keys)


def trainer(name: str) -> ConfidenceTrainer:
    instance = object.__new__(ConfidenceTrainer)
    instance.config = OmegaConf.create({"reward": {"reward_manager": {"name": name}}})
    return instance


def test_verl_finds_the_mode_once_the_plugin_is_loaded() -> None:
    assert get_trainer_cls("sync_confidence") is ConfidenceTrainer


def test_the_mean_over_sampled_tokens_is_the_reward_at_the_last_token() -> None:
    token_values = torch.tensor([[1.0, 3.0, 9.0, 9.0], [0.5, 7.0, 1.5, 9.0], [2.0, 2.0, 2.0, 2.0]])
    # The second token of the second response comes from a tool.
    mask = torch.tensor([[1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]])
    assert confidence_rewards(token_values, mask).tolist() == [[0, 2, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("name", "field", "token_values", "rewards"),
    [
        # veRL has cut its entropies to the response.
        ("token_entropy", "entropy", nested([1.0, 3.0], [5.0], [4.0]), [[0.0, -2.0], [-5.0], [0.0]]),
        # Over prompt and response; the value at a token belongs to the distribution of the next token.
        (
            "self_certainty",
            "self_certainty",
            nested([9.0, 1.0, 3.0, 9.0], [9.0, 5.0, 9.0], [9.0, 4.0, 9.0]),
            [[0.0, 2.0], [5.0], [0.0]],
        ),
    ],
)
def test_the_rewards_in_the_queue_are_replaced_before_the_advantages(
    name: str, field: str, token_values: torch.Tensor, rewards: list[list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {field: token_values, "response_mask": nested([1, 1], [1], [1])}
    put: list[TensorDict] = []
    queue = SimpleNamespace(
        kv_batch_get=lambda select_fields, **_: {name: rows[name] for name in select_fields},
        kv_batch_put=lambda fields, **_: put.append(fields),
    )
    # veRL would take the reward of the only response to a prompt for its advantage.
    batch: Any = Batch(keys=["a_0_0", "a_1_0", "b_1_0"], partition_id="train")
    monkeypatch.setattr(confidence_trainer, "tq", queue)
    monkeypatch.setattr(PPOTrainerSync, "_compute_advantage", lambda self, batch, metrics: (put[0], batch))
    fields, passed = trainer(name)._compute_advantage(batch, {})
    assert passed is batch
    assert [row.tolist() for row in fields["rm_scores"].unbind()] == rewards


@pytest.mark.parametrize(("name", "flag"), [("token_entropy", None), ("self_certainty", True)])
def test_only_the_pass_for_old_log_probabilities_computes_self_certainty(
    name: str, flag: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def compute(self: Any, batch: Any, metrics: dict) -> Any:
        seen.append(batch.extra_info.get("calculate_self_certainty"))
        return Batch(extra_info=dict(batch.extra_info))

    monkeypatch.setattr(PPOTrainerSync, "_compute_old_log_prob", compute)
    batch: Any = Batch(extra_info={"temperature": 1.0})
    computed = trainer(name)._compute_old_log_prob(batch, {})
    assert seen == [flag]
    assert batch.extra_info == computed.extra_info == {"temperature": 1.0}


@pytest.mark.parametrize(
    ("key", "value", "fix"),
    [
        ("reward.reward_manager.name", "majority_vote", "set reward.reward_manager.name to self_certainty or token_en"),
        ("algorithm.rollout_correction.bypass_mode", True, "set algorithm.rollout_correction.bypass_mode=False"),
        ("actor_rollout_ref.model.use_fused_kernels", True, "set actor_rollout_ref.model.use_fused_kernels=False"),
        ("actor_rollout_ref.actor.strategy", "megatron", "set actor_rollout_ref.actor.strategy=fsdp2"),
        ("trainer.v1.trainer_mode", "sync", "set trainer.v1.trainer_mode=sync_confidence"),
    ],
)
def test_unmet_needs_of_rewards_from_logits_are_reported_before_anything_starts(key: str, value: Any, fix: str) -> None:
    config = OmegaConf.create(
        {
            "actor_rollout_ref": {"model": {"use_fused_kernels": False}, "actor": {"strategy": "fsdp2"}},
            "reward": {"reward_manager": {"name": "self_certainty"}, "custom_reward_function": {"path": None}},
            "algorithm": {"rollout_correction": {"bypass_mode": False}},
            "trainer": {"v1": {"trainer_mode": "sync_confidence"}},
        }
    )
    others = set(problems_of_config(config))
    assert not any("sync_confidence" in problem or "self_certainty is" in problem for problem in others)
    OmegaConf.update(config, key, value)
    assert any(fix in problem for problem in set(problems_of_config(config)) - others)
