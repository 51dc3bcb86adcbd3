"""Patch `qwen2_5_vl_dedup_image_tokens` in `vllm_async_server`: send vLLM one token per image for GLM-4.1V too.

vLLM replaces each image token of a prompt with one token per image feature. veRL's prompts already contain that many,
so veRL reduces each run of image tokens to one, but only for Qwen's image processors. Without this patch an image with
n features takes 2n - 1 positions in vLLM, and a second image replaces a token of the first. Remove when veRL does so
for every processor.
"""

from collections.abc import Callable
from typing import Any


def patched(original: Callable[..., list[int]], prompt_ids: list[int], processor: Any) -> list[int]:
    """Reduce each run of image tokens to one token; GLM's special tokens separate the runs."""
    if type(processor).__name__ != "Glm4vProcessor":
        return original(prompt_ids, processor)
    image = processor.image_token_id
    before = [None, *prompt_ids]
    return [token for token, previous in zip(prompt_ids, before, strict=False) if not token == previous == image]
