"""The policy loss `on_policy`, for one update per batch: needs no separate pass for old log-probabilities.

PPO's ratio compares the policy of an update with the policy at the start of the batch. In the only update of a batch
the two are the same, the ratio is 1, and a separate pass would compute the same log-probabilities twice. As in TRL's
GRPOTrainer, the old log-probabilities are the update's own, detached. veRL's `rollout_correction.bypass_mode`, which
uses vLLM's log-probabilities as the old ones, skips the separate pass. `verl_ext.config_checks` refuses the loss for
more than one update per batch.
"""

from typing import Any

import torch
from verl.trainer.ppo.core_algos import compute_policy_loss_vanilla, register_policy_loss
from verl.utils.torch_functional import masked_mean

from verl_ext.metric_names import PROBABILITY_DIFFERENCE


@register_policy_loss("on_policy")
def compute_policy_loss_on_policy(
    old_log_prob: torch.Tensor,
    log_prob: torch.Tensor,
    advantages: torch.Tensor,
    response_mask: torch.Tensor,
    **settings: Any,
) -> tuple[torch.Tensor, dict[str, Any]]:
    """Return veRL's clipped loss with the current policy as the old policy.

    Args:
        old_log_prob: vLLM's log-probabilities of the sampled tokens, (responses, tokens), used for a metric only.
        advantages: (responses, tokens).
        response_mask: (responses, tokens), 1 for a token of the response.

    Returns:
        The loss, and veRL's metrics plus `actor/rollout_probs_diff_mean`, the mean absolute difference between vLLM's
        and the policy's probabilities.
    """
    current = log_prob.detach()
    loss, metrics = compute_policy_loss_vanilla(current, log_prob, advantages, response_mask, **settings)
    difference = masked_mean((old_log_prob.exp() - current.exp()).abs(), response_mask)
    return loss, {**metrics, PROBABILITY_DIFFERENCE: difference.item()}
