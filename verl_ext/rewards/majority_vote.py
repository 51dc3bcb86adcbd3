"""The reward `majority_vote`: rewards a response for agreeing with the majority of its group.

Papers: MM-UPT, arXiv 2505.22453, section 3, for hard rewards; EMPO, arXiv 2504.05812, for soft rewards.
"""

from collections.abc import Sequence

from verl_ext.rewards.group_reward import REWARDS, GroupReward, VotedGroup


@REWARDS.register
class MajorityVoteReward(GroupReward):
    """The method of the paper; never sees a ground truth.

    `verl_ext.votes.majority.vote` computes the rewards, because it has already compared all answers.
    """

    name = "majority_vote"

    def rewards(self, group: VotedGroup) -> Sequence[float]:
        """Return 1 if the answer a equals the pseudo-label, else 0; under soft rewards n_a / n, the share of a."""
        return group.vote.rewards
