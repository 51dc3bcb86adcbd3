"""Patch `qwen2_5_vl_dedup_image_tokens` in `vllm_async_server`: vLLM also gets one token per image of GLM-4.1V.

vLLM replaces each image token of a prompt by one token per feature of the image. veRL's prompts already have that many,
so veRL reduces each run of image tokens to one, but only for Qwen's image processors. Without this patch an image of n
features takes 2n - 1 places in vLLM, and a second image replaces a token of the first. Remove when veRL does so for
every processor.
"""

from collections.abc import Callable
from typing import Any


def patched(original: Callable[..., list[int]], prompt_ids: list[int], processor: Any) -> list[int]:
    """Reduce runs of image tokens, which GLM's special tokens separate."""
    if type(processor).__name__ != "Glm4vProcessor":
        return original(prompt_ids, processor)
    image = processor.image_token_id
    before = [None, *prompt_ids]
    return [token for token, previous in zip(prompt_ids, before, strict=False) if not token == previous == image]
