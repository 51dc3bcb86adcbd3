"""Reward managers and agent loops that fail on purpose, chosen by the configuration of a run."""

import asyncio
import os
from typing import Any

from verl.experimental.agent_loop import AgentLoopOutput

from verl_ext.rewards.majority_vote import MajorityVoteRewardManager
from verl_ext.rewards.request import GroupRequest, ResponseScore
from verl_ext.rollout.shared_prompt import SharedPromptAgentLoop, current_prompt


class RaisingReward(MajorityVoteRewardManager):
    """Raises for every group; validation works."""

    async def run_single(self, data: GroupRequest) -> list[ResponseScore]:
        if data.validate:
            return await super().run_single(data)
        raise ZeroDivisionError("this reward always raises")


class HangingReward(MajorityVoteRewardManager):
    """Never returns for a group; validation works."""

    async def run_single(self, data: GroupRequest) -> list[ResponseScore]:
        if data.validate:
            return await super().run_single(data)
        await asyncio.Event().wait()
        raise AssertionError("unreachable")


class FailingAgentLoop(SharedPromptAgentLoop):
    """Fails the first FAULTY_RESPONSES responses of every prompt."""

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> AgentLoopOutput:
        prompt = current_prompt.get()
        started = getattr(prompt, "started", 0)
        prompt.started = started + 1
        if started < int(os.environ["FAULTY_RESPONSES"]):
            raise RuntimeError("this response always fails")
        return await super().run(sampling_params, **kwargs)
