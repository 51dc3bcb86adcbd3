"""Reward managers and agent loops that fail on purpose, chosen by the configuration of a run."""

import asyncio
from typing import Any, ClassVar

from verl.experimental.agent_loop import AgentLoopOutput

from verl_ext.rewards.group_request import GroupRequest, ResponseScore
from verl_ext.rollout.reward_manager import GroupRewardManager
from verl_ext.rollout.shared_prompt import SharedPromptAgentLoop, current_prompt


class RaisingReward(GroupRewardManager):
    """Raises for every group; validation works."""

    async def run_single(self, data: GroupRequest) -> list[ResponseScore]:
        if data.validate:
            return await super().run_single(data)
        raise ZeroDivisionError("this reward always raises")


class HangingReward(GroupRewardManager):
    """Never returns for a group; validation works."""

    async def run_single(self, data: GroupRequest) -> list[ResponseScore]:
        if data.validate:
            return await super().run_single(data)
        await asyncio.Event().wait()
        raise AssertionError("unreachable")


class FailingAgentLoop(SharedPromptAgentLoop):
    """Fails, of the 4 responses to each of the 4 prompts of a step, the first ones: as many as `FAILING` says."""

    # In the steps from the first on.
    FAILING: ClassVar[tuple[tuple[int, ...], ...]] = ((1, 1, 1, 1), (3, 3, 3, 3), (4, 0, 0, 0), (4, 4, 4, 4))
    # Responses started, prompt by prompt. One worker serves all prompts, and no step starts before the last has ended.
    started: ClassVar[dict[str, int]] = {}

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> AgentLoopOutput:
        uid = current_prompt.get().uid
        number = self.started[uid] = self.started.get(uid, 0) + 1
        step, prompt = divmod(list(self.started).index(uid), 4)
        if number <= self.FAILING[step][prompt]:
            raise RuntimeError("this response always fails")
        return await super().run(sampling_params, **kwargs)
