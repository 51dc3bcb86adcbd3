"""What a model is asked: the messages of a row, and these as vLLM takes them. The same as veRL makes of a row."""

import re
from io import BytesIO
from typing import TYPE_CHECKING, Any

from PIL import Image

if TYPE_CHECKING:
    from vllm import TokensPrompt


def chat(
    row: dict[str, Any], limits: dict[str, int], instruction: str | None = None, system_prompt: str | None = None
) -> list[dict[str, Any]]:
    """The messages of a row with every `<image>` replaced by the next of its images, as our veRL dataset does it.

    Args:
        row: with the columns of `data.schema`.
        limits: `min_pixels` and `max_pixels` of images, where there are such.
        instruction: follows the question after a space.
        system_prompt: a message before all others; without it the chat template may have one of its own.

    Raises:
        ValueError: the row has another number of images than of `<image>`.
    """
    images = row["images"] or []
    placeholders = sum(message["content"].count("<image>") for message in row["prompt"])
    if placeholders != len(images):
        raise ValueError(f"row {row['id']}: {placeholders} <image> in the prompt, {len(images)} images")
    *before, question = row["prompt"]
    if instruction is not None:
        question = {**question, "content": f"{question['content']} {instruction}"}
    if system_prompt is not None:
        before = [{"role": "system", "content": system_prompt}, *before]
    if not images:
        return [*before, question]
    remaining = iter(images)
    return [
        {
            "role": message["role"],
            "content": [
                {"type": "image", "image": Image.open(BytesIO(next(remaining)["bytes"])), **limits}
                if part == "<image>"
                else {"type": "text", "text": part}
                for part in re.split("(<image>)", message["content"])
                if part
            ],
        }
        for message in (*before, question)
    ]


def engine_prompt(
    row: dict[str, Any],
    processor: Any,
    instruction: str | None = None,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    system_prompt: str | None = None,
) -> "TokensPrompt":
    """The prompt of a row as vLLM takes it: token ids with one placeholder an image, and the images themselves.

    Images are scaled into `min_pixels` .. `max_pixels` (None: no limit of ours) by the function that veRL uses; see
    `chat` for the rest.
    """
    from qwen_vl_utils import process_vision_info

    limits = {name: value for name, value in (("min_pixels", min_pixels), ("max_pixels", max_pixels)) if value}
    messages = chat(row, limits, instruction, system_prompt)
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    prompt: TokensPrompt = {"prompt_token_ids": processor.tokenizer(text, add_special_tokens=False)["input_ids"]}
    images, _ = process_vision_info(messages, image_patch_size=processor.image_processor.patch_size)
    if images:
        prompt["multi_modal_data"] = {"image": images}
    return prompt
