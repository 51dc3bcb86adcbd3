"""Text of others on a card, which no part of it can leave."""

import re

_ABSOLUTE = re.compile(r"""(?<![^\s'"=\[,:{])~?/(?:[^\s'",\[\]{}/]+/)*([^\s'",\[\]{}/]+)/?""")


def without_folders(text: str) -> str:
    """A text in which absolute paths, also inside values and lists, are shortened to their last part.

    >>> without_folders("mmupt train my_recipe data.train_files='[/home/me/a.parquet,~/b/]' url=http://host/v1 runs/x")
    "mmupt train my_recipe data.train_files='[a.parquet,b]' url=http://host/v1 runs/x"
    """
    return _ABSOLUTE.sub(r"\1", text)


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
