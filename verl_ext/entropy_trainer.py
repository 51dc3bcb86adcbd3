"""The trainer mode `sync_entropy`: veRL's synchronous trainer, whose rewards are minus the exact entropy of tokens.

RENT: Prabhudesai et al. 2025, "Maximizing Confidence Alone Improves Reasoning", arXiv 2505.22660. Formula: the authors'
`verl/trainer/ppo/ray_trainer.py` under `trainer.minimize_entropy` (github.com/satrams/rent-rl, 5d4d38a), without their
penalty for responses in the wrong format, which is off by default (`base_format`).

Entropies over the whole vocabulary exist in veRL's pass for old log-probabilities only, after the rewards. This mode,
which `register_trainer` adds to veRL's, replaces the rewards before the advantages are computed. It goes with
`reward.reward_manager.name=entropy`, which estimates the same from the sampled tokens; `vote/zero_advantage_rate` is
that of the estimate. `verl_ext.config_checks` refuses other combinations.
"""

import torch
import transfer_queue as tq
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.workers.utils.padding import response_to_nested


@register_trainer("sync_entropy")
class EntropyTrainer(PPOTrainerSync):
    """veRL's synchronous trainer with exact entropies as rewards."""

    def _build_replay_buffer(self) -> ReplayBuffer:
        # veRL asks for the name of the mode to tell synchronous training from asynchronous.
        self.trainer_mode = "sync"
        return super()._build_replay_buffer()

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        data = tq.kv_batch_get(
            keys=batch.keys, partition_id=batch.partition_id, select_fields=["entropy", "response_mask"]
        )
        scores = response_to_nested(
            entropy_rewards(data["entropy"].to_padded_tensor(0.0), data["response_mask"].to_padded_tensor(0)),
            data["response_mask"],
        )
        fields = TensorDict({"rm_scores": scores}, batch_size=len(batch))
        tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=fields)
        return super()._compute_advantage(batch, metrics)


def entropy_rewards(entropy: torch.Tensor, response_mask: torch.Tensor) -> torch.Tensor:
    """Minus the mean entropy of the tokens of each response, at its last token; 0.0 at all others.

    Args:
        entropy: of the distribution at each token, in nats, (responses, tokens).
        response_mask: (responses, tokens), 1 for a token of the response that the policy sampled.
    """
    mask = response_mask.to(entropy.dtype)
    means = (entropy * mask).sum(dim=-1) / mask.sum(dim=-1).clamp(min=1)
    positions = torch.arange(mask.shape[-1], device=mask.device)
    last = (positions * (response_mask > 0)).argmax(dim=-1, keepdim=True)
    return torch.zeros_like(entropy).scatter(-1, last, -means.unsqueeze(-1))
