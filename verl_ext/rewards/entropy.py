"""The reward `entropy`: a response is rewarded for the confidence of its tokens."""

from collections.abc import Sequence
from statistics import fmean

from verl_ext.rewards.group_reward import REWARDS, GroupReward, VotedGroup


@REWARDS.register
class EntropyReward(GroupReward):
    """Minus an estimate of the policy's entropy: (1 / T) * sum of log p over the T sampled tokens.

    RENT (arXiv 2505.22660) rewards minus the mean entropy of the full distribution at each token. vLLM returns log p of
    the sampled token alone, whose expectation is minus that entropy: an unbiased estimate from one sample per token,
    noisier than the sum over the vocabulary. Temperature and top_p are applied to p.
    """

    name = "entropy"
    bounds = None
    needs_log_probs = True

    def rewards(self, group: VotedGroup) -> Sequence[float]:
        """The mean log-probability of the tokens of each response, at most 0.0."""
        assert group.log_probs is not None
        return [fmean(log_probs) for log_probs in group.log_probs]
