"""Markdown tables and their text. Names, labels and responses are not trusted: no text can change the layout."""

import re
from collections.abc import Sequence
from typing import Any, Protocol

# Longer values are cut in code spans.
LONGEST_CODE = 200
# Characters that would end a cell, or start code, emphasis, a link, an HTML tag or a formula.
_MARKUP = re.compile(r"[\\`*\[\]|$]|<(?=[A-Za-z/!?])")


class Mean(Protocol):
    """A mean with its standard error."""

    @property
    def value(self) -> float: ...

    @property
    def standard_error(self) -> float: ...


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells, the head first, as a Markdown table; columns line up in plain text and all cells are escaped."""
    cells = [list(map(escaped, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def escaped(text: str) -> str:
    """A text on one line as Markdown that shows it literally."""
    return _MARKUP.sub(r"\\\g<0>", _one_line(text))


def code(value: Any) -> str:
    """A value as a code span on one line, from which no character can escape."""
    text = str(value).replace("`", "'").replace("|", "¦")
    return f"`{_one_line(text)[:LONGEST_CODE]}`"


def plus_minus(mean: Mean, decimals: int = 2, factor: float = 100, signed: bool = False) -> str:
    """A mean with its standard error, in percent unless `factor` says otherwise.

    >>> from verl_ext.scores import Score
    >>> plus_minus(Score((0.0, 1.0)), decimals=1)
    '50.0 ± 50.0'
    """
    sign = "+" if signed else ""
    return f"{factor * mean.value:{sign}.{decimals}f} ± {factor * mean.standard_error:.{decimals}f}"


def _one_line(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)
