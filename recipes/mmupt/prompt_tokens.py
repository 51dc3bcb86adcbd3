"""Counts the tokens of prompts as veRL's datasets and Qwen-VL's processor make them, without scaling an image.

Which length is too much is not here.
"""

from collections.abc import Mapping
from typing import Any

from recipes.mmupt.compose import RecipeError
from recipes.mmupt.evaluation.prompts import chat


class NoWidthError(ValueError):
    """An image of which scaling leaves nothing of the shorter side."""


class PromptTokens:
    """The tokens of the prompts of one model.

    Args:
        model: a folder or hub name.
        limits: `min_pixels` and `max_pixels` into which images are scaled when they are read, where there are such.
        instruction: follows every question after a space; None for nothing.
        trust_remote_code: as transformers knows it.

    Raises:
        RecipeError: the model has another kind of image processor, whose tokens nobody here can count.
    """

    def __init__(
        self, model: str, limits: Mapping[str, int], instruction: str | None, trust_remote_code: bool = False
    ) -> None:
        # Seconds of imports, which a recipe that is refused before need not wait for.
        from transformers import AutoProcessor

        self._limits, self._instruction = limits, instruction
        self._processor = AutoProcessor.from_pretrained(model, trust_remote_code=trust_remote_code)
        images: Any = getattr(self._processor, "image_processor", None)
        if "Qwen2VLImageProcessor" not in type(images).__name__:
            raise RecipeError(f"{model}: prompts of a model with {type(images).__name__} cannot be measured beforehand")
        self.tokenizer = self._processor.tokenizer
        self._factor = images.patch_size * images.merge_size
        self._smallest, self._largest = images.size["shortest_edge"], images.size["longest_edge"]

    def count(self, row: dict[str, Any]) -> tuple[int, int]:
        """The tokens of a row's prompt with the opening of the response, and how many of them are of images.

        Raises:
            NoWidthError: an image of the row is too narrow.
            ValueError: the row has another number of images than of `<image>`.
        """
        messages = chat(row, {}, self._instruction)
        text = self._processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        of_text = len(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        images = [
            part["image"]
            for message in messages
            for part in message["content"]
            if isinstance(part, dict) and "image" in part
        ]
        of_images = sum(self.of_image(*image.size) for image in images)
        # Every image is one token in the text.
        return of_text - len(images) + of_images, of_images

    def of_image(self, width: int, height: int) -> int:
        """Tokens of an image of so many pixels, which is scaled when it is read and again by the processor.

        Raises:
            NoWidthError: the first scaling leaves nothing of the shorter side, at which the processor would fail.
        """
        from qwen_vl_utils.vision_process import smart_resize as scaled_when_read
        from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize as scaled_by_processor

        factor = self._factor
        scaled_height, scaled_width = scaled_when_read(height, width, factor=factor, **self._limits)
        if not min(scaled_height, scaled_width):
            raise NoWidthError(f"{width} x {height} px, scaled to the limits, leaves no width")
        scaled_height, scaled_width = scaled_by_processor(
            scaled_height, scaled_width, factor=factor, min_pixels=self._smallest, max_pixels=self._largest
        )
        return int(scaled_height * scaled_width // factor**2)
