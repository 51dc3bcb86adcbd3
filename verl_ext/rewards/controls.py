"""Reward managers to hold the vote against: `ground_truth`, what labels would give, and `random`, what noise gives."""

import random
from collections.abc import Sequence

from verl.experimental.reward_loop.reward_manager.registry import register

from verl_ext.answers import equivalent
from verl_ext.rewards.group import GroupRewardManager
from verl_ext.votes import Vote


@register("ground_truth")
class GroundTruthRewardManager(GroupRewardManager):
    """Supervised GRPO: the only manager under which `data.supervised` may be set, and must be."""

    def rewards(self, answers: Sequence[str | None], result: Vote, truth: str | None) -> Sequence[float]:
        """1.0 for right answers, 0.0 for the others."""
        return [float(equivalent(answer, truth)) for answer in answers]


@register("random")
class RandomRewardManager(GroupRewardManager):
    """Rewards that know nothing: what training changes by itself."""

    def rewards(self, answers: Sequence[str | None], result: Vote, truth: str | None) -> Sequence[float]:
        """1.0 with probability 1/2 for every response by itself, else 0.0."""
        return [float(random.random() < 0.5) for _ in answers]
