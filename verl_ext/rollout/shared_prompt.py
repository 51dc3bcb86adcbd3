"""Work on a prompt that all its sessions share: done once, by whichever session comes first.

veRL scales the images of a prompt and runs the processor anew for every response, to build the prompt and again for the
tensors that the actor trains on, sends the images with every request, and spreads the requests of a prompt over all
replicas, each of which processes and encodes the images again. Here all of it happens once per prompt: the requests go
to one replica and name the images, which are in Ray's object store. All prompts of a step are in flight at the same
time, so a worker keeps neither images nor features once they are sent. What is shared is found through a context
variable, which every task started by the worker for this prompt inherits.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from functools import cached_property
from typing import Any, TypeVar

import ray
import torch
from PIL import Image
from verl.experimental.agent_loop import AgentLoopOutput
from verl.experimental.agent_loop.agent_loop import register
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop
from verl.workers.rollout.llm_server import LLMServerClient
from verl.workers.rollout.replica import TokenOutput

from verl_ext.config_defaults import SHARED_PROMPT_AGENT
from verl_ext.process_memory import return_freed_memory
from verl_ext.rollout.pixel_codes import PIXELS, PixelCoder
from verl_ext.rollout.shared_features import store

Result = TypeVar("Result")


class SharedPrompt:
    """What the sessions of one prompt have in common.

    Once its tokens are built, `tokens` are those, and `features` what else veRL needs of it here, by veRL's names;
    pixel values are only in the queue (`has_pixels`), and not even there unless `is_trained_on`.
    `position_ids` are those of the tokens, (1, 4, tokens) for M-RoPE and (1, tokens) otherwise.
    """

    def __init__(self, uid: str, is_trained_on: bool = True) -> None:
        self.uid = uid
        self.is_trained_on = is_trained_on
        self.tokens: list[int] = []
        self.features: dict[str, torch.Tensor] | None = None
        self.has_pixels = False
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


class SentImages:
    """The images of a prompt until its tokens are built; then a reference to them, in Ray's object store."""

    def __init__(self, images: list[Image.Image]) -> None:
        self.content: list[Image.Image] | ray.ObjectRef = images

    def send(self) -> None:
        """Put the images into the object store and keep the reference alone; nothing is sent where Ray does not run."""
        if ray.is_initialized():
            self.content = ray.put(self.content)


class OneReplicaClient:
    """veRL's client to the engines, for the sessions of a prompt: one replica serves them, and sees its images once.

    veRL's load balancer sends requests with the same id to the same replica, chosen for the first of them by its load
    (verl/workers/rollout/router/), and gives the engine ids of its own. Ray replaces a reference among the arguments
    of a call by what it refers to.

    Args:
        client: veRL's.
        keeps_ids: whether ids go to the engine as they are (`rollout.full_determinism`), which refuses to serve the
            same one twice; requests then keep theirs.
    """

    def __init__(self, client: LLMServerClient, keeps_ids: bool) -> None:
        self._client = client
        self._keeps_ids = keeps_ids

    async def generate(self, request_id: str, *, image_data: SentImages | None = None, **request: Any) -> TokenOutput:
        """As `LLMServerClient.generate`."""
        return await self._client.generate(
            request_id=request_id if self._keeps_ids else current_prompt.get().uid,
            image_data=None if image_data is None else image_data.content,
            **request,
        )


# Of a worker, whose images are processed; each takes some 150 MB for an image of one megapixel.
PROMPTS_AT_A_TIME = 2
# See `return_freed_memory`; an image of one megapixel leaves some 40 MB behind.
PROMPTS_BETWEEN_RETURNS = 8

current_prompt: ContextVar[SharedPrompt] = ContextVar("current_prompt")


def copied(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages of one's own, with the same images."""
    return [
        {
            **message,
            "content": message["content"]
            if isinstance(message["content"], str)
            else [dict(part) for part in message["content"]],
        }
        for message in messages
    ]


def remove_images(messages: Sequence[Mapping[str, Any]]) -> None:
    """Leave the places of the images in these messages, but not the images."""
    for message in messages:
        for part in () if isinstance(message["content"], str) else message["content"]:
            if part["type"] == "image":
                part.clear()
                part["type"] = "image"


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

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._places = asyncio.Semaphore(PROMPTS_AT_A_TIME)
        self._processed = 0

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> AgentLoopOutput:
        """As in veRL; the images of the output are what a client takes for them."""
        messages = list(kwargs["raw_prompt"])
        await current_prompt.get().once("prepared", lambda: self._prepare(messages))
        output = await super().run(sampling_params, **kwargs)
        if output.multi_modal_data and "images" in output.multi_modal_data:
            images = output.multi_modal_data["images"].content
            output.multi_modal_data = {**output.multi_modal_data, "images": images}
        return output

    async def _prepare(self, messages: list[dict]) -> None:
        """What veRL's `run` begins with, so that it finds all of it done."""
        # Otherwise all prompts of a step would be between their processor call and their storage at the same time.
        async with self._places:
            media = await self.process_multi_modal_info(messages)
            self._assert_mm_supported(bool(media))
            await self.ct_build_initial_tokens(
                messages, **{name: media.get(name) for name in ("images", "videos", "audios")}
            )

    async def process_multi_modal_info(self, messages: list[dict]) -> dict:
        """As in veRL, once a prompt; the dict is the same object in every session, and its images are `SentImages`."""
        process = super().process_multi_modal_info

        async def read() -> dict[str, Any]:
            media = await process(messages)
            return {**media, "images": SentImages(media["images"])} if "images" in media else media

        return await current_prompt.get().once("media", read)

    async def ct_build_initial_tokens(
        self,
        messages: list[dict],
        *,
        images: SentImages | None = None,
        mm_inputs_out: dict[str, Any] | None = None,
        **media: Any,
    ) -> list[int]:
        """As in veRL, once a prompt; every session gets a list of its own.

        Stores the features, and sends the images, neither of which are kept here.
        """
        prompt, build = current_prompt.get(), super().ct_build_initial_tokens

        async def build_tokens() -> tuple[list[int], dict[str, Any]]:
            processed: dict[str, Any] = {}
            content = None if images is None else images.content
            tokens = await build(messages, images=content, mm_inputs_out=processed, **media)
            prompt.has_pixels = PIXELS in processed
            if prompt.has_pixels and prompt.is_trained_on:
                await store(prompt.uid, await self.loop.run_in_executor(None, self._stored, processed))
            processed.pop(PIXELS, None)
            prompt.features = self._with_lengths(processed)
            prompt.tokens = list(tokens)
            if images is not None:
                images.send()
                remove_images(messages)
            return tokens, processed

        tokens, processed = await prompt.once("tokens", build_tokens)
        if mm_inputs_out is not None:
            mm_inputs_out.update(processed)
        return list(tokens)

    def _stored(self, processed: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        self._processed += 1
        if self._processed % PROMPTS_BETWEEN_RETURNS == 0:
            return_freed_memory()
        features = self._with_lengths(processed)
        # veRL leaves this one out of what the actor is given.
        features.pop("mm_token_type_ids", None)
        return features if self._coder is None else self._coder.compact(features)

    @staticmethod
    def _with_lengths(processed: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        features = {name: value for name, value in processed.items() if name != "attention_mask"}
        if (grid := processed.get("image_grid_thw")) is not None:
            features["images_seqlens"] = torch.repeat_interleave(grid[:, 1] * grid[:, 2], grid[:, 0])
        return features

    @cached_property
    def _coder(self) -> PixelCoder | None:
        return PixelCoder.of(self.processor)
