"""`on_policy` equals veRL's clipped loss if the old policy is the current one, and is refused otherwise."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from verl.trainer.ppo.core_algos import compute_policy_loss_vanilla, get_policy_loss_fn
from verl.workers.config import FSDPActorConfig

from mmupt.compose import RecipeError, load_recipe

CONFIG = FSDPActorConfig(
    strategy="fsdp2", rollout_n=2, ppo_micro_batch_size_per_gpu=1, clip_ratio_low=0.2, clip_ratio_high=0.3
)


def refusal(overrides: list[str]) -> str:
    try:
        load_recipe("mmupt_tiny", overrides)
    except RecipeError as error:
        return str(error)
    return ""


def loss_and_gradient(
    loss: Any, old: torch.Tensor, log_prob: torch.Tensor, advantages: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, dict[str, float]]:
    log_prob = log_prob.clone().requires_grad_()
    value, metrics = loss(old_log_prob=old, log_prob=log_prob, advantages=advantages, response_mask=mask, config=CONFIG)
    value.backward()
    assert log_prob.grad is not None
    return value.detach(), log_prob.grad, metrics


@given(st.integers(0, 2**32 - 1))
def test_loss_and_gradient_equal_those_of_ppo_with_old_log_probabilities_of_the_same_policy(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    log_prob, by_vllm = (-5 * torch.rand(3, 7, generator=generator) for _ in range(2))
    advantages = torch.randn(3, 7, generator=generator)
    mask = torch.rand(3, 7, generator=generator) < 0.7
    mask[0, 0] = True
    ppo, ppo_gradient, _ = loss_and_gradient(compute_policy_loss_vanilla, log_prob, log_prob, advantages, mask)
    loss, gradient, metrics = loss_and_gradient(get_policy_loss_fn("on_policy"), by_vllm, log_prob, advantages, mask)
    assert torch.equal(loss, ppo) and torch.equal(gradient, ppo_gradient)
    difference = (by_vllm.exp() - log_prob.exp()).abs()[mask].mean()
    assert metrics["actor/rollout_probs_diff_mean"] == pytest.approx(difference.item(), abs=1e-6)
    assert metrics["actor/pg_clipfrac"] == metrics["actor/ppo_kl"] == 0


@pytest.mark.parametrize(
    ("overrides", "fix"),
    [
        (["data.train_batch_size=64"], "ppo_mini_batch_size=64"),
        (["actor_rollout_ref.actor.ppo_epochs=2"], "ppo_epochs=1"),
        (["trainer.v1.trainer_mode=colocate_async"], "trainer_mode=sync"),
        (["algorithm.rollout_correction.bypass_mode=False"], "bypass_mode=True"),
        (["actor_rollout_ref.rollout.calculate_log_probs=False"], "calculate_log_probs=True"),
    ],
)
def test_the_loss_is_refused_if_the_updated_policy_is_not_the_sampling_policy(overrides: list[str], fix: str) -> None:
    alternatives = ["actor_rollout_ref.actor.policy_loss.loss_mode=vanilla"]
    alternatives.append("algorithm.rollout_correction.bypass_mode=False")
    with pytest.raises(RecipeError, match=fix) as refused:
        load_recipe("mmupt_tiny", overrides)
    assert all(override in str(refused.value) for override in alternatives)
    assert "on_policy" not in refusal([*overrides, *alternatives])


def test_a_method_other_than_grpo_may_have_mini_batches_of_any_size() -> None:
    config, _ = load_recipe("mmupt_tiny", ["method=stic", "actor_rollout_ref.actor.ppo_mini_batch_size=8"])
    assert config.actor_rollout_ref.actor.ppo_mini_batch_size == 8
