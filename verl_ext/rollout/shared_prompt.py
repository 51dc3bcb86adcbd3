"""Shares the work on a prompt between its sessions: the first session that needs a result computes it.

For each response, veRL resizes the images and runs the processor twice, to build the prompt and to compute the tensors
that the actor trains on. It sends the images with each request and spreads the requests of a prompt over all replicas,
each of which processes and encodes the images again. Here this happens once per prompt: its requests go to one replica
and refer to the images in Ray's object store. All prompts of a step are in flight at the same time, so a worker keeps
neither images nor features once they are sent. Sessions find the shared work through a context variable, which every
task that the worker starts for the prompt inherits.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any, TypeVar

import ray
import torch
from PIL import Image
from verl.experimental.agent_loop import AgentLoopOutput
from verl.experimental.agent_loop.agent_loop import DictConfigWrap, register
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop
from verl.workers.rollout.llm_server import LLMServerClient
from verl.workers.rollout.replica import TokenOutput

from verl_ext.config_defaults import SHARED_PROMPT_AGENT
from verl_ext.datasets.message_parts import images_in
from verl_ext.process_memory import return_freed_memory
from verl_ext.rollout.group_client import with_shared_calls
from verl_ext.rollout.pixel_codes import PIXELS, PixelCoder
from verl_ext.rollout.shared_features import store

Result = TypeVar("Result")


class SharedPrompt:
    """The results that the sessions of one prompt share.

    Attributes:
        tokens: token ids of the prompt, empty until they are built.
        features: the processor's other outputs, by veRL's names, without pixel values.
        has_pixels: whether the prompt has pixel values; the queue stores them if the prompt `is_trained_on`.
        position_ids: position ids of `tokens`, (1, 4, tokens) for M-RoPE and (1, tokens) otherwise.
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
        """Return the result, or raise the error, of the first call with this name."""
        if name not in self._results:
            self._results[name] = asyncio.ensure_future(make())
        # Shielded, because a cancelled session must not cancel the work for the others.
        return await asyncio.shield(self._results[name])

    def close(self) -> None:
        """Release all results when the sessions have ended.

        The task behind a result references its context, which references this prompt. This cycle would keep images and
        features alive until Python's garbage collector runs, which is rare.
        """
        self._results.clear()


class SentImages:
    """The images of a prompt, or after `send` a reference to them in Ray's object store."""

    def __init__(self, images: list[Image.Image]) -> None:
        self.content: list[Image.Image] | ray.ObjectRef = images

    def send(self) -> None:
        """Move the images to the object store and keep only a reference; does nothing without Ray."""
        if ray.is_initialized():
            self.content = ray.put(self.content)


class OneReplicaClient:
    """Wraps veRL's client so that all requests of a prompt go to one replica.

    All requests of a prompt get the same id. veRL's load balancer sends equal ids to the replica that had the lowest
    load at the first request (verl/workers/rollout/router.py); the engine gets other ids. Requests with the same id
    also share calls (`verl_ext.rollout.group_client`). Ray resolves references in the arguments of a call.

    Args:
        keeps_ids: whether the engine gets the ids of the requests (`rollout.full_determinism`). It refuses to serve an
            id twice, so each request keeps its own id.
    """

    def __init__(self, client: LLMServerClient, keeps_ids: bool) -> None:
        self._client = client if keeps_ids else with_shared_calls(client)
        self._keeps_ids = keeps_ids

    async def generate(self, request_id: str, *, image_data: SentImages | None = None, **request: Any) -> TokenOutput:
        """Like `LLMServerClient.generate`."""
        return await self._client.generate(
            request_id=request_id if self._keeps_ids else current_prompt.get().uid,
            image_data=None if image_data is None else image_data.content,
            **request,
        )


# Prompts whose images a worker processes concurrently; a one-megapixel image takes about 30 MB.
PROMPTS_AT_A_TIME = 2
# Prompts between two calls of `return_freed_memory`; a one-megapixel image leaves about 20 MB of freed memory.
PROMPTS_BETWEEN_RETURNS = 8

current_prompt: ContextVar[SharedPrompt] = ContextVar("current_prompt")


def continued(position_ids: torch.Tensor, count: int) -> torch.Tensor:
    """Extend the position ids of a prompt by `count` text tokens after its highest position.

    The first of M-RoPE's four rows counts tokens; the other three continue from their common maximum.
    """
    steps = torch.arange(1, count + 1)
    if position_ids.dim() == 2:
        return torch.cat([position_ids, position_ids[:, -1:] + steps], dim=1)
    last = torch.stack([position_ids[0, 0, -1], *[position_ids[0, 1:].max()] * 3])
    return torch.cat([position_ids, (last[:, None] + steps)[None]], dim=2)


@register(SHARED_PROMPT_AGENT)
class SharedPromptAgentLoop(SingleTurnAgentLoop):
    """veRL's single-turn loop on top of a `SharedPrompt`; selected by `rollout.agent.default_agent_loop`."""

    server_manager: Any

    def __init__(self, *, processor: Any, data_config: DictConfigWrap, **kwargs: Any) -> None:
        self._coder = PixelCoder.of(processor, data_config.config.get("mm_processor_kwargs"))
        if self._coder is not None:
            processor = self._coder.processor
        super().__init__(processor=processor, data_config=data_config, **kwargs)
        self.server_manager = OneReplicaClient(self.server_manager, self.rollout_config.full_determinism)
        self._places = asyncio.Semaphore(PROMPTS_AT_A_TIME)
        self._processed = 0

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> AgentLoopOutput:
        """Run as veRL does; the output contains the images as the client sent them."""
        await self.prepare(list(kwargs["raw_prompt"]))
        output = await super().run(sampling_params, **kwargs)
        if output.multi_modal_data and "images" in output.multi_modal_data:
            images = output.multi_modal_data["images"].content
            output.multi_modal_data = {**output.multi_modal_data, "images": images}
        return output

    async def prepare(self, messages: list[dict]) -> int:
        """Build the tokens of the prompt unless they exist, and return their number."""
        prompt = current_prompt.get()
        await prompt.once("prepared", lambda: self._prepare(messages))
        return len(prompt.tokens)

    async def _prepare(self, messages: list[dict]) -> None:
        """Do the first part of veRL's `run`, which then reuses the results."""
        # Limits the number of prompts whose pixel values are in memory at the same time.
        async with self._places:
            media = await self.process_multi_modal_info(messages)
            self._assert_mm_supported(bool(media))
            await self.ct_build_initial_tokens(
                messages, **{name: media.get(name) for name in ("images", "videos", "audios")}
            )

    async def process_multi_modal_info(self, messages: list[dict]) -> dict:
        """Read the media as veRL does, but once per prompt; sessions share the dict and its `SentImages`."""
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
        """Build the tokens as veRL does, but once per prompt, and return a new list.

        Also store the features and send the images; this process keeps neither.
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
                for part in images_in(messages):
                    # Keep an empty image part as a placeholder.
                    part.clear()
                    part["type"] = "image"
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
        # veRL does not pass `mm_token_type_ids` to the actor.
        features.pop("mm_token_type_ids", None)
        return features if self._coder is None else self._coder.compact(features)

    @staticmethod
    def _with_lengths(processed: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        features = {name: value for name, value in processed.items() if name != "attention_mask"}
        if (grid := processed.get("image_grid_thw")) is not None:
            features["images_seqlens"] = torch.repeat_interleave(grid[:, 1] * grid[:, 2], grid[:, 0])
        return features
