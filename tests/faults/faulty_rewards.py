"""Rewards that fail on purpose, which runs load as a plugin (`MMUPT_PLUGINS`)."""

import time
from collections.abc import Sequence

from verl_ext.rewards.group_reward import REWARDS, GroupReward, VotedGroup


@REWARDS.register
class RaisingReward(GroupReward):
    """Raises for every group."""

    name = "raising"

    def rewards(self, group: VotedGroup) -> Sequence[float]:
        raise ZeroDivisionError("this reward always raises")


@REWARDS.register
class HangingReward(GroupReward):
    """Never returns."""

    name = "hanging"

    def rewards(self, group: VotedGroup) -> Sequence[float]:
        while True:
            time.sleep(1)
