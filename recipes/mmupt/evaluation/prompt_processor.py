"""Loads what makes the prompts of a model: its processor, or what a language model without images has instead."""

from typing import Any


class TextProcessor:
    """The tokenizer of a language model as a processor without images.

    Attributes:
        tokenizer: of `transformers`.
        image_processor: None.
    """

    image_processor = None

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.apply_chat_template = tokenizer.apply_chat_template
        self.save_pretrained = tokenizer.save_pretrained

    def __call__(self, text: list[str], images: None = None, **options: Any) -> Any:
        """Tokenize texts as a processor does, with `mm_token_type_ids` of 0, which is text."""
        if images is not None:
            raise ValueError("the model reads text alone")
        inputs = self.tokenizer(text, **options)
        inputs["mm_token_type_ids"] = 0 * inputs["input_ids"]
        return inputs


def load_processor(model: str, trust_remote_code: bool = False) -> Any:
    """The processor of a model, or a `TextProcessor`; `model` is a folder or hub name."""
    # Imported lazily: transformers takes seconds to load.
    from transformers import AutoProcessor

    # AutoProcessor returns the tokenizer of a model that has nothing else.
    processor = AutoProcessor.from_pretrained(model, trust_remote_code=trust_remote_code)
    return processor if hasattr(processor, "tokenizer") else TextProcessor(processor)
