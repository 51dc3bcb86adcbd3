"""The trainer mode `sync_confidence`: veRL's synchronous trainer with rewards computed from logits.

For `reward.reward_manager.name` `token_entropy` and `self_certainty` (`verl_ext/rewards/confidence.py`);
`verl_ext.config_checks` refuses other combinations. Logits exist only in veRL's pass for old log-probabilities, after
responses are rewarded, so this mode replaces the rewards before it computes advantages. Until then they are those of
`entropy`, and so are the figures of `vote/zero_advantage_rate` and of the votes on file.

Sources: `verl/trainer/ppo/ray_trainer.py` of RENT, under `trainer.minimize_entropy` (github.com/satrams/rent-rl,
5d4d38a), without its penalty for responses in the wrong format, which is off by default (`base_format`); and of
Intuitor, under `AdvantageEstimator.INTUITOR` (github.com/sunblaze-ucb/Intuitor, 3f0cdd7).
"""

from collections import Counter

import torch
import transfer_queue as tq
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.workers.utils.padding import response_from_nested, response_to_nested

from verl_ext.confidence_engine import CALCULATE, SELF_CERTAINTY
from verl_ext.rewards.confidence import SelfCertaintyReward


@register_trainer("sync_confidence")
class ConfidenceTrainer(PPOTrainerSync):
    """veRL's synchronous trainer with rewards from logits."""

    def _build_replay_buffer(self) -> ReplayBuffer:
        # veRL takes any other mode for an asynchronous one.
        self.trainer_mode = "sync"
        return super()._build_replay_buffer()

    @property
    def _rewards_self_certainty(self) -> bool:
        return bool(self.config.reward.reward_manager.name == SelfCertaintyReward.name)

    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        if not self._rewards_self_certainty:
            return super()._compute_old_log_prob(batch, metrics)
        batch.extra_info[CALCULATE] = True
        computed = super()._compute_old_log_prob(batch, metrics)
        # The update reads the same `extra_info` and must not compute self-certainty again.
        for metadata in (batch, computed):
            metadata.extra_info.pop(CALCULATE, None)
        return computed

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        field = SELF_CERTAINTY if self._rewards_self_certainty else "entropy"
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=[field, "response_mask"])
        mask = data["response_mask"]
        # veRL's entropies cover the response only; self-certainty covers the prompt too.
        confidence = response_from_nested(data[field], mask) if self._rewards_self_certainty else -data[field]
        rewards = confidence_rewards(confidence.to_padded_tensor(0.0), mask.to_padded_tensor(0))
        # veRL's GRPO uses the reward of a lone survivor as its advantage.
        sessions = Counter(session.split("_")[0] for session in {key.rpartition("_")[0] for key in batch.keys})
        rewards[[sessions[key.split("_")[0]] == 1 for key in batch.keys]] = 0.0
        fields = TensorDict({"rm_scores": response_to_nested(rewards, mask)}, batch_size=len(batch))
        tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=fields)
        return super()._compute_advantage(batch, metrics)


def confidence_rewards(confidence: torch.Tensor, response_mask: torch.Tensor) -> torch.Tensor:
    """Put the mean confidence of each response at its last token and 0.0 at all other tokens.

    Args:
        confidence: confidence at each token, in nats, (responses, tokens).
        response_mask: (responses, tokens), 1 for a token that the policy sampled.
    """
    mask = response_mask.to(confidence.dtype)
    means = (confidence * mask).sum(dim=-1) / mask.sum(dim=-1).clamp(min=1)
    positions = torch.arange(mask.shape[-1], device=mask.device)
    last = (positions * (response_mask > 0)).argmax(dim=-1, keepdim=True)
    return torch.zeros_like(confidence).scatter(-1, last, means.unsqueeze(-1))
