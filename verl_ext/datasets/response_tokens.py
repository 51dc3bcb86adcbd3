"""Tokenizes responses that are given as text. Imports no framework."""

from typing import Any


def turn_tokens(tokenizer: Any, response: str) -> list[int]:
    """The tokens of a response and its end of turn, as a policy would sample them.

    Special tokens that the text spells out, such as an end of turn or an image placeholder, stay plain text.
    """
    tokens = tokenizer(response, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return [*tokens, tokenizer.eos_token_id]
