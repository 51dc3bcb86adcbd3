"""Work on a prompt that all its sessions share: done once, by whichever session comes first.

veRL decodes the images of a prompt and runs the processor anew for every response, once to build the prompt and once
more for the tensors that the actor trains on. Here both happen once a prompt. What is shared is found through a context
variable, which every task started by the worker for this prompt inherits.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, TypeVar

from verl.experimental.agent_loop.agent_loop import register
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop

Result = TypeVar("Result")


class SharedPrompt:
    """What the sessions of one prompt have in common.

    `features` is what the processor made of the prompt beside its token ids, by name, once `build_tokens` has run.
    """

    def __init__(self) -> None:
        self.features: dict[str, Any] | None = None
        self._results: dict[str, asyncio.Future[Any]] = {}

    async def once(self, name: str, make: Callable[[], Awaitable[Result]]) -> Result:
        """Return the result of the first `make` called under this name; an error, too, is everybody's."""
        if name not in self._results:
            self._results[name] = asyncio.ensure_future(make())
        # Shielded, as one cancelled session must not take the work away from the others.
        return await asyncio.shield(self._results[name])


current_prompt: ContextVar[SharedPrompt] = ContextVar("current_prompt")


@register("shared_prompt_agent")
class SharedPromptAgentLoop(SingleTurnAgentLoop):
    """veRL's single-turn loop on top of the prompt's `SharedPrompt`; chosen by `rollout.agent.default_agent_loop`."""

    async def process_multi_modal_info(self, messages: list[dict]) -> dict:
        """As in veRL, once a prompt; the dict and its images are the same objects in every session."""
        process = super().process_multi_modal_info
        return await current_prompt.get().once("media", lambda: process(messages))

    async def ct_build_initial_tokens(
        self, messages: list[dict], *, mm_inputs_out: dict[str, Any] | None = None, **media: Any
    ) -> list[int]:
        """As in veRL, once a prompt; every session gets a list of its own."""
        prompt, build = current_prompt.get(), super().ct_build_initial_tokens

        async def build_tokens() -> list[int]:
            features: dict[str, Any] = {}
            tokens = await build(messages, mm_inputs_out=features, **media)
            prompt.features = features
            return tokens

        tokens = await prompt.once("tokens", build_tokens)
        if mm_inputs_out is not None:
            mm_inputs_out.update(prompt.features or {})
        return list(tokens)
