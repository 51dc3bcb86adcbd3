"""An extension of griffe that reads lines `name: meaning` in a class docstring as the documentation of its fields."""

import re
from collections.abc import Collection
from typing import Any

import griffe


class FieldLists(griffe.Extension):
    """Puts the heading of Google's docstring style above paragraphs of such lines."""

    def on_class(self, *, cls: griffe.Class, **kwargs: Any) -> None:
        """Called by griffe for every class."""
        if cls.docstring is not None:
            cls.docstring.value = with_heading(cls.docstring.value, cls.attributes.keys())


def with_heading(docstring: str, fields: Collection[str]) -> str:
    """Put "Attributes:" above each paragraph that begins with a field and its meaning, which may span several lines."""
    return "\n\n".join(_section(paragraph, fields) for paragraph in docstring.split("\n\n"))


def _section(paragraph: str, fields: Collection[str]) -> str:
    names = "|".join(map(re.escape, fields))
    if not names or not re.match(rf"(?:{names}): ", paragraph):
        return paragraph
    lines = [f"    {line}" if re.match(r"\w+: ", line) else f"        {line.strip()}" for line in paragraph.split("\n")]
    return "\n".join(["Attributes:", *lines])
