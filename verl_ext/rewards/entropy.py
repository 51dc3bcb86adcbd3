"""The reward manager `entropy`: being sure of one's tokens is the reward; answers vote for the metrics only."""

from collections.abc import Sequence
from statistics import fmean

from verl.experimental.reward_loop.reward_manager.registry import register

from verl_ext.rewards.group_request import GroupRequest
from verl_ext.rewards.group_reward_manager import GroupRewardManager
from verl_ext.votes import Vote


@register("entropy")
class EntropyRewardManager(GroupRewardManager):
    """Minus an estimate of the entropy of the policy: (1 / T) * sum over the T sampled tokens of log p(token).

    RENT (arXiv 2505.22660) rewards minus the mean entropy of the whole distribution at each token. vLLM
    returns log p of the sampled token alone, whose expectation is minus that entropy: this is the estimate of it from
    one sample a token, unbiased given what stands before the token and noisier than the sum over the vocabulary. Like
    p itself it is of the distribution that was sampled from, temperature and top_p applied.
    """

    needs_log_probs = True

    def rewards(self, answers: Sequence[str | None], result: Vote, request: GroupRequest) -> Sequence[float]:
        """The mean log-probability of the tokens of each response, 0.0 at most."""
        assert request.log_probs is not None
        return [fmean(log_probs) for log_probs in request.log_probs]
