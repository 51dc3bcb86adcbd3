"""The reward manager `majority_vote`: the answers of a group vote, and agreeing with the majority is the reward.

Papers: MM-UPT, arXiv 2505.22453, section 3, for hard rewards; EMPO, arXiv 2504.05812, for soft ones. Training never
looks at a truth; validation never votes.
"""

from collections.abc import Sequence

from verl.experimental.reward_loop.reward_manager.registry import register

from verl_ext.rewards.group_request import GroupRequest
from verl_ext.rewards.group_reward_manager import GroupRewardManager
from verl_ext.votes import Vote


@register("majority_vote")
class MajorityVoteRewardManager(GroupRewardManager):
    """The method itself.

    With y the pseudo-label and n_a of the n responses answering a, a response that answers a gets 1 if a = y, else 0;
    by the soft rules of `VotePolicy`, n_a / n.
    """

    def rewards(self, answers: Sequence[str | None], result: Vote, request: GroupRequest) -> Sequence[float]:
        """What the vote has made of the responses."""
        return result.rewards
