"""The reward `majority_vote`: a response is rewarded for agreeing with the majority of its group.

Papers: MM-UPT, arXiv 2505.22453, section 3, for hard rewards; EMPO, arXiv 2504.05812, for soft ones.
"""

from collections.abc import Sequence

from verl_ext.rewards.group_reward import REWARDS, GroupReward, VotedGroup


@REWARDS.register
class MajorityVoteReward(GroupReward):
    """The method of the paper. It never sees a ground truth.

    The vote counts and compares agreement at once, so `verl_ext.votes.majority.vote` computes these rewards.
    """

    name = "majority_vote"

    def rewards(self, group: VotedGroup) -> Sequence[float]:
        """With y the pseudo-label and n_a of n responses answering a: 1 if a = y, else 0; soft rules give n_a / n."""
        return group.vote.rewards
