"""Text of others on a card, which no part of it can leave."""

import re


def fenced(text: str, language: str) -> str:
    """A text as a code block of Markdown.

    >>> print(fenced("a ``` b", "text"))
    ````text
    a ``` b
    ````
    """
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"
