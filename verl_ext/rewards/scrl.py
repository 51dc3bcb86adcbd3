"""The reward `scrl`: +1 for a clear majority, -1 for rare answers that the policy is unsure about.

SCRL: Yan et al. 2026, "What If Consensus Lies?", arXiv 2603.19880. Formula: the authors'
`verl/trainer/ppo/scrl_utils.py` and `verl/utils/reward_score/scrl_math/__init__.py` (github.com/Jasper-Yan/SCRL,
06535a1), reward mode `binary`.
"""

from collections.abc import Sequence
from statistics import fmean

from verl_ext.rewards.group_reward import REWARDS, GroupReward, VotedGroup

# The authors' tau_pos, tau_marg and tau_low_min.
POSITIVE_SHARE = 0.5
POSITIVE_MARGIN = 0.15
NEGATIVE_SHARE = 0.15


@REWARDS.register
class ScrlReward(GroupReward):
    """Selective positive and entropy-gated negative pseudo-labels.

    Difference from the authors' code: the entropy of a response is the mean -log p of its sampled tokens, an unbiased
    estimate (see `verl_ext.rewards.confidence`) of their mean entropy over the whole vocabulary. The quorums and the
    tie rule of the vote do not apply.
    """

    name = "scrl"
    bounds = (-1.0, 1.0)
    needs_log_probs = True

    def rewards(self, group: VotedGroup) -> Sequence[float]:
        """Return 1, 0 or -1, depending on the share of the response's answer in the group; -1 without an answer.

        1 if the share is the largest, at least 0.5 and more than 0.15 above the second largest. -1 if it is below 0.15
        and the mean entropy of the responses with that answer is at least the mean entropy of the group. 0 otherwise.
        """
        assert group.log_probs is not None
        entropies = [-fmean(log_probs) for log_probs in group.log_probs]
        group_entropy = fmean(entropies)
        classes = group.vote.classes
        shares = [len(members) / len(group.answers) for members in classes]
        rewards = [-1.0] * len(group.answers)
        for rank, (members, share) in enumerate(zip(classes, shares, strict=True)):
            others = shares[1:] if rank == 0 else shares[:1]
            reward = 0.0
            if share >= POSITIVE_SHARE and (not others or share - others[0] > POSITIVE_MARGIN):
                reward = 1.0
            elif share < NEGATIVE_SHARE and fmean(entropies[member] for member in members) >= group_entropy:
                reward = -1.0
            for member in members:
                rewards[member] = reward
        return rewards
