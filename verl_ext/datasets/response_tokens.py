"""The tokens of a response that is given as text. Imports no framework."""

from typing import Any


def turn_tokens(tokenizer: Any, response: str) -> list[int]:
    """The tokens of a response and the one that ends its turn, as a policy would have sampled them.

    A special token that the text spells out, an end of turn or the place of an image, is text and no such token.
    """
    tokens = tokenizer(response, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return [*tokens, tokenizer.eos_token_id]
