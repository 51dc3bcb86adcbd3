"""The tokens of a response that is given as text. Imports no framework."""

from typing import Any


def turn_tokens(tokenizer: Any, response: str) -> list[int]:
    """The tokens of a response and the one that ends its turn, as a policy would have sampled them.

    A special token spelled out in the text, such as an end of turn or an image placeholder, stays plain text.
    """
    tokens = tokenizer(response, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return [*tokens, tokenizer.eos_token_id]
