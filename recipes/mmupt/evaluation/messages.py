"""What a model is asked: the messages of a row, and these as vLLM or a trainer takes them. As veRL makes them."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from verl_ext.control_text import IMAGE, control_tokens, plain_messages
from verl_ext.datasets.pixel_limits import accepted_size, scaled_size, with_margins
from verl_ext.datasets.row_format import with_instruction
from verl_ext.images import decode, stored_size

if TYPE_CHECKING:
    from PIL import Image
    from vllm import TokensPrompt


def chat(
    row: dict[str, Any],
    processor: Any,
    limits: dict[str, int],
    instruction: str | None = None,
    system_prompt: str | None = None,
) -> list[dict[str, Any]]:
    """The messages of a row with its images in their places, as our veRL dataset makes them.

    All other text of the row that is control text for veRL or the tokenizer is escaped, see `plain_messages`. Images
    that no processor of Qwen-VL would accept get margins, see `with_margins`.

    Args:
        row: with the columns of `mmupt_data.row_schema`.
        processor: of the model.
        limits: `min_pixels` and `max_pixels` of images, where there are such.
        instruction: follows the question after a space.
        system_prompt: a message before all others; without it the chat template may have one of its own.

    Raises:
        ImageError: an image cannot be decoded.
    """

    def image_part(encoded: bytes) -> dict[str, Any]:
        return {"image": with_margins(decode(encoded).image, processor.image_processor, limits), **limits}

    return _messages(row, processor, image_part, instruction=instruction, system_prompt=system_prompt)


def _messages(
    row: dict[str, Any],
    processor: Any,
    image_part: Callable[[bytes], dict[str, Any]],
    instruction: str | None,
    system_prompt: str | None = None,
) -> list[dict[str, Any]]:
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
                if part == IMAGE
                else {"type": "text", "text": part}
                for part in re.split(f"({IMAGE})", message["content"])
                if part
            ],
        }
        for message in (*before, question)
    ]


def rendered(
    row: dict[str, Any],
    processor: Any,
    instruction: str | None = None,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    system_prompt: str | None = None,
) -> "tuple[str, list[Image.Image] | None]":
    """The text of a row's prompt, up to where the response begins, with one placeholder an image, and the images.

    Images, None where there are none, are scaled into `min_pixels` .. `max_pixels` (None: no limit of ours) by the
    function that veRL uses; see `chat` for the rest.
    """
    from qwen_vl_utils import process_vision_info

    limits = {name: value for name, value in (("min_pixels", min_pixels), ("max_pixels", max_pixels)) if value}
    messages = chat(row, processor, limits, instruction, system_prompt)
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    images, _ = process_vision_info(messages, image_patch_size=processor.image_processor.patch_size)
    return text, images


def engine_prompt(
    row: dict[str, Any],
    processor: Any,
    instruction: str | None = None,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    system_prompt: str | None = None,
) -> "TokensPrompt":
    """The prompt of a row as vLLM takes it: token ids with one placeholder an image, and the images; see `rendered`."""
    text, images = rendered(row, processor, instruction, min_pixels, max_pixels, system_prompt)
    prompt: TokensPrompt = {"prompt_token_ids": processor.tokenizer(text, add_special_tokens=False)["input_ids"]}
    if images:
        prompt["multi_modal_data"] = {"image": images}
    return prompt


def prompt_tokens(
    row: dict[str, Any], processor: Any, instruction: str | None, limits: dict[str, int]
) -> tuple[int, list[int]]:
    """How many tokens a row's prompt has without its images, and each image, of which only the header is read.

    `processor` is that of Qwen2-VL or a successor. See `image_tokens` and `chat` for the rest.
    """
    messages = _messages(row, processor, lambda _: {}, instruction)
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    # An image that is turned has as many tokens.
    sizes = [stored_size(image["bytes"]) for image in row["images"] or []]
    # Every image is one token in the text.
    of_text = len(processor.tokenizer(text, add_special_tokens=False)["input_ids"]) - len(sizes)
    return of_text, [image_tokens(width, height, processor.image_processor, limits) for width, height in sizes]


def image_tokens(width: int, height: int, image_processor: Any, limits: dict[str, int]) -> int:
    """Tokens of an image of so many pixels, which gets margins if need be and is scaled twice: see `verl_ext`'s pixels.

    Raises:
        ValueError: `limits` or those of the processor leave nothing of any image.
    """
    scaled = scaled_size(*accepted_size(width, height, image_processor, limits), image_processor, limits)
    if scaled is None:
        raise ValueError(f"min_pixels and max_pixels leave nothing of an image: {limits}")
    return int(scaled[0] * scaled[1] // (image_processor.patch_size * image_processor.merge_size) ** 2)
