"""Text from runs on a card: without folders of this machine, and fenced so that its Markdown has no effect."""

import re

_ABSOLUTE = re.compile(r"""(?<![^\s'"=\[,:{])~?/(?:[^\s'",\[\]{}/]+/)*([^\s'",\[\]{}/]+)/?""")


def without_folders(text: str) -> str:
    """Shorten absolute paths in a text, also inside values and lists, to their last part.

    >>> without_folders("mmupt train my_recipe data.train_files='[/home/me/a.parquet,~/b/]' url=http://host/v1 runs/x")
    "mmupt train my_recipe data.train_files='[a.parquet,b]' url=http://host/v1 runs/x"
    """
    return _ABSOLUTE.sub(r"\1", text)


def fenced(text: str, language: str) -> str:
    """Return a text as a Markdown code block, with a fence that the text cannot close.

    >>> print(fenced("a ``` b", "text"))
    ````text
    a ``` b
    ````
    """
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"
