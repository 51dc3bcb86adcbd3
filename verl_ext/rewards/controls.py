"""Control experiments: `ground_truth` shows what training on labels gives, `random` what training on noise gives."""

import random
from collections.abc import Sequence

from verl_ext.answers import correct
from verl_ext.rewards.group_reward import REWARDS, GroupReward, VotedGroup


@REWARDS.register
class GroundTruthReward(GroupReward):
    """Supervised GRPO (DeepSeekMath, arXiv 2402.03300)."""

    name = "ground_truth"
    needs_ground_truth = True
    is_control = True

    def rewards(self, group: VotedGroup) -> Sequence[float]:
        """Return 1.0 for a correct answer, otherwise 0.0."""
        comparison = self.settings.comparison
        return [float(correct(answer, group.ground_truth, comparison, group.choices)) for answer in group.answers]


@REWARDS.register
class RandomReward(GroupReward):
    """Rewards without information (Spurious Rewards, arXiv 2506.10947): the effect of training alone."""

    name = "random"
    is_control = True

    def rewards(self, group: VotedGroup) -> Sequence[float]:
        """Return 1.0 or 0.0 with equal probability, independently per response."""
        return [float(random.random() < 0.5) for _ in group.answers]
