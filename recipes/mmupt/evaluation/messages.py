"""Builds the prompt of a row as veRL does in training: as messages, as text with images, and as input of vLLM."""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from verl_ext.control_text import PLACEHOLDER, control_tokens, plain_messages
from verl_ext.datasets.pixel_limits import accepted_size, visual_tokens, with_margins
from verl_ext.datasets.row_format import with_instruction
from verl_ext.images import decode, stored_size

if TYPE_CHECKING:
    from PIL import Image
    from vllm import TokensPrompt


def _messages(
    row: dict[str, Any],
    processor: Any,
    image_part: Callable[[bytes], dict[str, Any]],
    instruction: str | None,
    system_prompt: str | None = None,
) -> list[dict[str, Any]]:
    """Build the messages of a row like `verl_ext.datasets.prompt_dataset`, with control text escaped."""
    images = row["images"] or []
    *before, question = plain_messages(row["prompt"], len(images), control_tokens(processor.tokenizer))
    question = {**question, "content": with_instruction(question["content"], instruction)}
    if system_prompt is not None:
        before = [{"role": "system", "content": system_prompt}, *before]
    if not images:
        return [*before, question]
    remaining = iter(images)
    return [
        {
            "role": message["role"],
            "content": [
                {"type": "image", **image_part(next(remaining)["bytes"])}
                if part == PLACEHOLDER
                else {"type": "text", "text": part}
                for part in re.split(f"({PLACEHOLDER})", message["content"])
                if part
            ],
        }
        for message in (*before, question)
    ]


def rendered(
    row: dict[str, Any],
    processor: Any,
    limits: Mapping[str, int],
    instruction: str | None = None,
    system_prompt: str | None = None,
) -> "tuple[str, list[Image.Image] | None]":
    """Render a row's prompt as text with one placeholder per image, and return it with the images, None without any.

    veRL's own function scales images into `limits`, after `with_margins` has padded those that the processor would
    refuse.

    Args:
        row: with the columns of `mmupt_data.row_schema`.
        processor: of the model.
        limits: `min_pixels` and `max_pixels` of images, if set.
        instruction: appended to the question after a space.
        system_prompt: the first message; if None, the chat template may add its own.

    Raises:
        ImageError: an image cannot be decoded.
    """
    from qwen_vl_utils import process_vision_info

    def image_part(encoded: bytes) -> dict[str, Any]:
        return {"image": with_margins(decode(encoded).image, processor.image_processor, limits), **limits}

    messages = _messages(row, processor, image_part, instruction, system_prompt)
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    if not row["images"]:
        return text, None
    images, _ = process_vision_info(messages, image_patch_size=processor.image_processor.patch_size)
    return text, images


def engine_prompt(
    row: dict[str, Any],
    processor: Any,
    limits: Mapping[str, int] = MappingProxyType({}),
    instruction: str | None = None,
    system_prompt: str | None = None,
) -> "TokensPrompt":
    """Build vLLM's prompt for a row: token ids with one placeholder per image, and the images; see `rendered`."""
    text, images = rendered(row, processor, limits, instruction, system_prompt)
    prompt: TokensPrompt = {"prompt_token_ids": processor.tokenizer(text, add_special_tokens=False)["input_ids"]}
    if images:
        prompt["multi_modal_data"] = {"image": images}
    return prompt


def prompt_tokens(
    row: dict[str, Any], processor: Any, instruction: str | None, limits: Mapping[str, int]
) -> tuple[int, list[int]]:
    """Count the text tokens of a row's prompt, and the tokens of each image, from the headers of the images alone.

    `processor` is that of Qwen2-VL or a successor. See `image_tokens` and `rendered` for the other arguments.
    """
    messages = _messages(row, processor, lambda _: {}, instruction)
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    # Rotation does not change the number of tokens.
    sizes = [stored_size(image["bytes"]) for image in row["images"] or []]
    # The text has one placeholder token per image.
    text_tokens = len(processor.tokenizer(text, add_special_tokens=False)["input_ids"]) - len(sizes)
    return text_tokens, [image_tokens(width, height, processor.image_processor, limits) for width, height in sizes]


def image_tokens(width: int, height: int, image_processor: Any, limits: Mapping[str, int]) -> int:
    """Count the tokens of an image of this size in px, after margins and both scalings of `pixel_limits`.

    Raises:
        ValueError: `limits` or the processor's own limits leave no pixels of an image.
    """
    tokens = visual_tokens(*accepted_size(width, height, image_processor, limits), image_processor, limits)
    if tokens is None:
        raise ValueError(f"min_pixels and max_pixels leave nothing of an image: {limits}")
    return tokens
