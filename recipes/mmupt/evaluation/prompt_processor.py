"""One interface for the processor of a multimodal model and the tokenizer of a language model."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any


class PromptProcessor:
    """A processor or tokenizer of `transformers`, with the arguments of its chat template.

    Every prompt is rendered with these arguments, like `data.apply_chat_template_kwargs` in veRL. `image_processor` is
    None for a language model.
    """

    def __init__(self, own: Any, chat_template_kwargs: Mapping[str, Any] = MappingProxyType({})) -> None:
        self.own = own
        self.tokenizer = getattr(own, "tokenizer", own)
        self.image_processor = getattr(own, "image_processor", None)
        self._chat_template_kwargs = dict(chat_template_kwargs)

    def apply_chat_template(self, messages: list[dict[str, Any]], **options: Any) -> Any:
        """See `transformers`; adds the arguments of the chat template."""
        return self.own.apply_chat_template(messages, **self._chat_template_kwargs, **options)

    def __call__(self, text: list[str], images: Any = None, **options: Any) -> Any:
        """Process text and images. A language model gets `mm_token_type_ids` of 0, the type of text."""
        if self.image_processor is not None:
            return self.own(text=text, images=images, **options)
        if images is not None:
            raise ValueError("the model reads only text")
        inputs = self.tokenizer(text, **options)
        inputs["mm_token_type_ids"] = 0 * inputs["input_ids"]
        return inputs


def load_processor(
    model: str,
    chat_template_kwargs: Mapping[str, Any] = MappingProxyType({}),
    trust_remote_code: bool = False,
) -> PromptProcessor:
    """Load the processor of a model, given as a folder or hub name."""
    # Imported lazily: transformers takes seconds to load.
    from transformers import AutoProcessor

    # AutoProcessor returns the tokenizer of a model without a processor.
    return PromptProcessor(
        AutoProcessor.from_pretrained(model, trust_remote_code=trust_remote_code), chat_template_kwargs
    )
