"""Reward managers to hold the vote against: `ground_truth`, what labels would give, and `random`, what noise gives."""

import random
from collections.abc import Sequence

from verl.experimental.reward_loop.reward_manager.registry import register

from verl_ext.answers import correct
from verl_ext.rewards.group_request import GroupRequest
from verl_ext.rewards.group_reward_manager import GroupRewardManager
from verl_ext.votes import Vote


@register("ground_truth")
class GroundTruthRewardManager(GroupRewardManager):
    """Supervised GRPO (DeepSeekMath, arXiv 2402.03300): 1 for a right answer, else 0.

    The only manager under which `data.supervised` may be set, and must be.
    """

    def rewards(self, answers: Sequence[str | None], result: Vote, request: GroupRequest) -> Sequence[float]:
        """1.0 for right answers, 0.0 for the others."""
        comparison = self._settings.comparison
        return [float(correct(answer, request.truth, comparison, request.choices)) for answer in answers]


@register("random")
class RandomRewardManager(GroupRewardManager):
    """Rewards that know nothing (Spurious Rewards, arXiv 2506.10947): what training changes by itself."""

    def rewards(self, answers: Sequence[str | None], result: Vote, request: GroupRequest) -> Sequence[float]:
        """1.0 with probability 1/2 for every response by itself, else 0.0."""
        return [float(random.random() < 0.5) for _ in answers]
