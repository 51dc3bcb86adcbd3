"""The reward manager `majority_vote`: the answers of a group vote, and agreeing with the majority is the reward.

Paper: MM-UPT, arXiv 2505.22453, section 3. Training never looks at a truth; validation never votes.
"""

from collections.abc import Sequence

from verl.experimental.reward_loop.reward_manager.registry import register

from verl_ext.rewards.group import GroupRewardManager
from verl_ext.votes import Vote


@register("majority_vote")
class MajorityVoteRewardManager(GroupRewardManager):
    """The method itself."""

    def rewards(self, answers: Sequence[str | None], result: Vote, truth: str | None) -> Sequence[float]:
        """1.0 for the responses that agree with the majority, 0.0 for the others."""
        return result.rewards
