"""Work on a prompt that all its sessions share: done once, by whichever session comes first.

veRL scales the images of a prompt and runs the processor anew for every response, to build the prompt and again for the
tensors that the actor trains on, and pickles the images for every request to the engine. Here all of it happens once a
prompt. What is shared is found through a context
variable, which every task started by the worker for this prompt inherits.
"""

import asyncio
import pickle
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
from PIL import Image
from verl.experimental.agent_loop.agent_loop import register
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop

from verl_ext.defaults import SHARED_PROMPT_AGENT

Result = TypeVar("Result")


class SharedPrompt:
    """What the sessions of one prompt have in common.

    Once its tokens are built, `tokens` are those, and `features` what else the actor needs of it, by veRL's names.
    `position_ids` are those of the tokens, (1, 4, tokens) for M-RoPE and (1, tokens) otherwise.
    """

    def __init__(self, uid: str) -> None:
        self.uid = uid
        self.tokens: list[int] = []
        self.features: dict[str, torch.Tensor] | None = None
        self.position_ids: torch.Tensor | None = None
        self._results: dict[str, asyncio.Future[Any]] = {}

    async def once(self, name: str, make: Callable[[], Awaitable[Result]]) -> Result:
        """Return the result of the first `make` called under this name; an error, too, is everybody's."""
        if name not in self._results:
            self._results[name] = asyncio.ensure_future(make())
        # Shielded, as one cancelled session must not take the work away from the others.
        return await asyncio.shield(self._results[name])

    def close(self) -> None:
        """Let go of all results when the sessions have ended; nobody may ask for one any more.

        The task that made a result keeps the context it ran in, in which this prompt is: a cycle, and images and
        features in it would wait for Python's rare search for those.
        """
        self._results.clear()


class PickledOnce(list[Image.Image]):
    """The images of a prompt, pickled once for the requests of all its sessions; a plain list where they arrive."""

    def __init__(self, images: list[Image.Image]) -> None:
        super().__init__(images)
        self._pickled = b""

    def __reduce_ex__(self, protocol: Any) -> tuple[Callable[..., Any], tuple[pickle.PickleBuffer]]:
        self._pickled = self._pickled or pickle.dumps(list(self), protocol=5)
        # As a buffer, which Ray sends without another copy in a pickle around it.
        return pickle.loads, (pickle.PickleBuffer(self._pickled),)


current_prompt: ContextVar[SharedPrompt] = ContextVar("current_prompt")


def continued(position_ids: torch.Tensor, count: int) -> torch.Tensor:
    """Extend the position ids of a prompt by `count` text tokens, which follow on its highest position.

    The first row of M-RoPE's four counts tokens, the others continue all three from their common maximum.
    """
    steps = torch.arange(1, count + 1)
    if position_ids.dim() == 2:
        return torch.cat([position_ids, position_ids[:, -1:] + steps], dim=1)
    last = torch.stack([position_ids[0, 0, -1], *[position_ids[0, 1:].max()] * 3])
    return torch.cat([position_ids, (last[:, None] + steps)[None]], dim=2)


@register(SHARED_PROMPT_AGENT)
class SharedPromptAgentLoop(SingleTurnAgentLoop):
    """veRL's single-turn loop on top of the prompt's `SharedPrompt`; chosen by `rollout.agent.default_agent_loop`."""

    async def process_multi_modal_info(self, messages: list[dict]) -> dict:
        """As in veRL, once a prompt; the dict and its images are the same objects in every session."""
        process = super().process_multi_modal_info

        async def read() -> dict[str, Any]:
            media = await process(messages)
            return {**media, "images": PickledOnce(media["images"])} if "images" in media else media

        return await current_prompt.get().once("media", read)

    async def ct_build_initial_tokens(
        self, messages: list[dict], *, mm_inputs_out: dict[str, Any] | None = None, **media: Any
    ) -> list[int]:
        """As in veRL, once a prompt; every session gets a list of its own."""
        prompt, build = current_prompt.get(), super().ct_build_initial_tokens

        async def build_tokens() -> tuple[list[int], dict[str, Any]]:
            processed: dict[str, Any] = {}
            tokens = await build(messages, mm_inputs_out=processed, **media)
            prompt.features = {name: value for name, value in processed.items() if name != "attention_mask"}
            if (grid := processed.get("image_grid_thw")) is not None:
                prompt.features["images_seqlens"] = torch.repeat_interleave(grid[:, 1] * grid[:, 2], grid[:, 0])
            prompt.tokens = list(tokens)
            return tokens, processed

        tokens, processed = await prompt.once("tokens", build_tokens)
        if mm_inputs_out is not None:
            mm_inputs_out.update(processed)
        return list(tokens)
