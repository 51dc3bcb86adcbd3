"""An agent loop that fails on purpose, chosen by the configuration of a run."""

from typing import Any, ClassVar

from verl.experimental.agent_loop import AgentLoopOutput

from verl_ext.rollout.shared_prompt import SharedPromptAgentLoop, current_prompt


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
