"""An agent loop that fails on purpose; agent_loops.yaml registers it."""

from typing import Any, ClassVar

from verl.experimental.agent_loop import AgentLoopOutput

from verl_ext.rollout.shared_prompt import SharedPromptAgentLoop, current_prompt


class FailingAgentLoop(SharedPromptAgentLoop):
    """Fails the first `FAILING[step][prompt]` of the 4 responses per prompt, with 4 prompts per step."""

    FAILING: ClassVar[tuple[tuple[int, ...], ...]] = ((1, 1, 1, 1), (3, 3, 3, 3), (4, 0, 0, 0), (4, 4, 4, 4))
    # Responses started, by prompt. One worker serves all prompts, and steps do not overlap, so order gives the step.
    started: ClassVar[dict[str, int]] = {}

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> AgentLoopOutput:
        uid = current_prompt.get().uid
        number = self.started[uid] = self.started.get(uid, 0) + 1
        step, prompt = divmod(list(self.started).index(uid), 4)
        if number <= self.FAILING[step][prompt]:
            raise RuntimeError("this response always fails")
        return await super().run(sampling_params, **kwargs)
